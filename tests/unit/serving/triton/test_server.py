import os
import re
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from serving import cli, settings
from serving.contract import Exit
from serving.errors import ArtifactRefused
from serving.triton import repository, server
from tests.rig import onnx_models

LISTEN = server.Listen("127.0.0.1", 1, 2, 3)


def wheel(folder: Path, *pythons: str) -> Path:
    """A folder like the one in the wheel, with stubs for these versions of Python."""
    triton = folder / "site-packages" / "pytriton" / "tritonserver"
    (triton / "backends" / "python").mkdir(parents=True)
    (triton / "backends" / "python" / "libtriton_python.so").touch()
    for python in pythons:
        (triton / "python_backend_stubs" / python).mkdir(parents=True)
        (triton / "python_backend_stubs" / python / "triton_python_backend_stub").touch()
    return triton


def test_the_repository_holds_what_triton_reads_and_nobody_can_write_to_it(tmp_path: Path) -> None:
    said = settings.parse('{"labels": {"y": ["a", "b", "c"]}}', "the test")
    served = server.found(onnx_models.linear(tmp_path / "model.onnx"), "linear", said)
    folder = tmp_path / "repository"

    repository.write(folder, served, wheel(tmp_path, f"{sys.version_info.major}.{sys.version_info.minor}"))

    model = folder / "models" / "linear"
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()) == [
        "alive/linear",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_stub",
        "bin/bash",
        "models/linear/1/model.py",
        "models/linear/config.pbtxt",
        "models/linear/labels-0.txt",
    ]
    assert text_format.Parse((model / "config.pbtxt").read_text(), pb.ModelConfig()).name == "linear"
    assert (model / "labels-0.txt").read_text() == "a\nb\nc\n"
    assert {oct(made.stat().st_mode & 0o777) for made in (folder / "models").rglob("*")} == {"0o500", "0o400"}


def test_a_python_that_the_wheel_has_no_stub_for_is_refused_with_those_it_has(tmp_path: Path) -> None:
    served = server.found(onnx_models.linear(tmp_path / "model.onnx"), "linear", {})

    with pytest.raises(ArtifactRefused, match=r"has nothing for Python 3\.\d+; it has 2\.7, 3\.0$"):
        repository.write(tmp_path / "repository", served, wheel(tmp_path, "3.0", "2.7"))


def test_what_no_client_needs_asks_for_a_header_that_none_can_send(tmp_path: Path) -> None:
    served = server.found(onnx_models.linear(tmp_path / "model.onnx"), "linear", {})

    def restrictions() -> list[str]:
        words = server.command(tmp_path / "penstock-triton-1-x", served, LISTEN, tmp_path)
        return [word.partition("=")[2] for word in words if "restricted" in word]

    first, second = restrictions(), restrictions()
    assert [one.rpartition("=")[0] for one in first] == [
        "shared-memory,trace,logging,model-repository:penstock-closed"
    ] * 2
    assert all(one.endswith("\n") for one in first)
    assert first != second


def test_triton_gets_nothing_of_the_environment_but_what_it_needs(tmp_path: Path) -> None:
    own = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s"}
    told = server.environment(tmp_path / "repository", wheel(tmp_path), own)

    assert told["PATH"] == f"{tmp_path}/repository/bin"
    assert sorted(told) == ["LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH"]
    assert told["LD_LIBRARY_PATH"].endswith(f":{tmp_path}/site-packages/nvidia_pytriton.libs")


def test_several_models_are_loaded_each_by_its_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        onnx_models.linear(tmp_path / name / "model.onnx")

    models = server.found(tmp_path, None, {})

    assert [served.name for served in models] == ["one", "two"]
    words = server.command(tmp_path / "penstock-triton-1-x", models, LISTEN, tmp_path)
    assert [word for word in words if word.startswith("--load-model")] == ["--load-model=one", "--load-model=two"]


def test_several_versions_of_a_model_are_refused(tmp_path: Path) -> None:
    for version in ("1", "2"):
        onnx_models.linear(tmp_path / "linear" / version / "model.onnx")

    with pytest.raises(ArtifactRefused, match="model linear has several versions, and Triton is given one; name its"):
        server.found(tmp_path, None, {})


def test_a_model_that_finds_no_room_is_refused_by_name_with_the_numbers(tmp_path: Path) -> None:
    for name in ("one", "two"):
        onnx_models.table(tmp_path / name / "model.onnx", 64)

    with pytest.raises(ArtifactRefused) as refused:
        server.found(tmp_path, None, {}, 192 * 2**20)

    told = re.fullmatch(
        r"model two takes (\d+) MiB of memory, and (\d+) MiB of the 192 MiB of this server \(--memory-budget\) are "
        "free; raise it, or serve the model elsewhere",
        str(refused.value),
    )
    assert told is not None, refused.value
    takes, free = map(int, told.groups())
    assert 64 <= takes <= 192
    assert abs(192 - takes - free) <= 16  # the first takes about as much


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, (), " does not exist; give a model file or a folder with models"),
        (b"no onnx", (), " is no whole ONNX model"),
        (b"no onnx", ("--settings", '{"batchng": {}}'), "--settings (or PENSTOCK_SETTINGS) cannot be taken"),
    ],
)
def test_what_cannot_be_served_is_told_before_triton_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, arguments: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)

    code = cli.main(["triton", str(path), *arguments], {})

    assert code == (Exit.FAILED if arguments else Exit.REFUSED)
    assert message in capsys.readouterr().err


def test_what_killed_servers_left_is_removed_and_what_live_ones_have_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = 2**22 + 1  # more than any process can have
    (tmp_path / f"penstock-triton-{gone}-a" / "models").mkdir(parents=True)
    (tmp_path / f"penstock-triton-{gone}-a" / "models").chmod(0o500)
    (tmp_path / f"penstock-triton-{os.getppid()}-b").mkdir()

    with server._scratch() as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / f"penstock-triton-{os.getppid()}-b"])
    assert not folder.exists()
