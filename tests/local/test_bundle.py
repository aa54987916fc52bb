"""A bundle serves on a Python that knows nothing of Penstock; for another machine its files are of its kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from serving.conformance.target import Place, Target
from serving.tensors import Tensor
from tests.conformance import expected
from tests.rig import ports
from tests.rig.model_server import DEADLINE_S, ROOT, until

PLAIN = expected.EXAMPLE / "plain.yaml"
ELF_MACHINE = {"linux/amd64": 0x3E, "linux/arm64": 0xB7}


def bundle(file: Path, target: str, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [
        "bundle",
        str(file),
        "--target",
        target,
        "-o",
        str(output),
        "--store",
        str(output.parent / "store"),
        *options,
    ]
    command = [sys.executable, "-m", "operators.cli.main", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for target in ELF_MACHINE:
        found[target] = folder / target.replace("/", "-")
        done = bundle(PLAIN, target, found[target])
        assert done.returncode == 0, done.stderr
        assert "variant fp32" in done.stdout
    return found


def test_it_serves_on_a_python_that_has_nothing_else(made: dict[str, Path]) -> None:
    http, grpc = ports.free(2)
    plain = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(plain), "HOME": "/nonexistent"}
    words = ["./run", "--http-port", str(http), "--grpc-port", str(grpc)]
    server = subprocess.Popen(words, cwd=made["linux/amd64"], env=environment, stdout=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{http}/v2/models/digits"

    def is_ready() -> bool:
        assert server.poll() is None
        try:
            return httpx.get(f"{url}/ready").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(is_ready, "the bundle's server is ready")
        name, x, output, y = expected.digits()
        target = Target(Place(url, f"127.0.0.1:{grpc}"))
        found = target.infer([Tensor(name, "FP32", x)])
        assert target.call("ServerReady").ready
        target.close()
        np.testing.assert_allclose(found[output], y, atol=1e-5)
    finally:
        server.terminate()
        assert server.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("target", ELF_MACHINE)
def test_all_that_is_compiled_in_it_is_for_its_target(made: dict[str, Path], target: str) -> None:
    machines = [
        int.from_bytes(file.read_bytes()[18:20], "little")
        for file in made[target].rglob("*.so*")
        if file.is_file() and file.read_bytes()[:4] == b"\x7fELF"
    ]
    assert len(machines) > 10
    assert set(machines) == {ELF_MACHINE[target]}


def test_it_says_what_is_in_it_and_its_unit_gives_it_no_rights(made: dict[str, Path]) -> None:
    folder = made["linux/arm64"]
    said = json.loads((folder / "bundle.json").read_text())
    unit = (folder / "penstock-digits.service").read_text()
    assert (said["model"], said["variant"], said["target"]) == ("digits", "fp32", "linux/arm64")
    assert said["packages"]["onnxruntime"]
    assert "ExecStart=/opt/penstock/digits/run --host 127.0.0.1" in unit
    assert {"DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(unit.splitlines())


def test_the_best_variant_that_is_proven_goes_along_as_one_file_with_its_settings_and_proof(tmp_path: Path) -> None:
    document = yaml.safe_load((expected.EXAMPLE / "model.yaml").read_text())
    spec = document["spec"]
    spec["source"]["uri"] = str(expected.DIGITS)
    spec["evaluation"]["dataset"]["uri"] = str(expected.EXAMPLE / "eval.npz")
    spec |= {"runtime": "openvino", "variants": [{"name": "fp32"}], "batching": {"maxSize": 8}}
    spec["resources"] = {"limits": {"memory": "512Mi"}}
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(document))

    output = tmp_path / "edge.tar.gz"
    done = bundle(file, "linux/amd64", output)

    assert done.returncode == 0, done.stderr
    with tarfile.open(output) as archive:
        names = archive.getnames()
        read = {name: archive.extractfile(f"edge/{name}") for name in ("bundle.json", "model/penstock.json")}
        unit = archive.extractfile("edge/penstock-digits.service")
        assert all(read.values())
        assert unit
        said, settings = (json.load(one) for one in read.values() if one)
        assert "MemoryMax=512M" in unit.read().decode().splitlines()
    assert "edge/model/model.openvino.onnx" in names
    assert "edge/lib/openvino" in names
    assert settings == {"batching": {"maxSize": 8}}
    assert said["quality"]["dropUpperBound"] <= 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variant", "int4"), "model digits has no variant int4; it has fp32"),
        (("--target", "linux/mips"), "'linux/mips'; choose linux/arm64 or linux/amd64"),
        (("--python", "3.6"), "cannot be had"),
    ],
)
def test_what_cannot_be_bundled_is_told(tmp_path: Path, options: tuple[str, str], message: str) -> None:
    done = bundle(PLAIN, "linux/arm64", tmp_path / "out", *options)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = bundle(PLAIN, "linux/arm64", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/out exists; remove it, or name another with --output\n"


def test_another_machine_or_python_is_told_and_no_module_is_missed(made: dict[str, Path], tmp_path: Path) -> None:
    def said(target: str, python: str) -> str:
        environment = {"PATH": os.environ["PATH"], "PYTHON": python}
        done = subprocess.run(["./run"], cwd=made[target], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return done.stderr

    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    assert "this bundle is for linux/arm64, and this machine is x86_64" in said("linux/arm64", sys.executable)
    assert f"{other} is no Python 3.11; install it" in said("linux/amd64", str(other))


def test_what_runs_by_a_server_of_others_is_not_bundled(tmp_path: Path) -> None:
    document = yaml.safe_load(PLAIN.read_text())
    document["spec"] |= {"runtime": "triton", "source": {"uri": str(expected.DIGITS)}}
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(document))
    done = bundle(file, "linux/amd64", tmp_path / "out")
    assert (done.returncode, "runtime triton is not bundled" in done.stderr) == (1, True)
