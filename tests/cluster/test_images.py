"""The images as a restricted pod runs them, and what is in their archives."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from images import archive, inputs, release
from images.build import Built, build, recorded
from images.storage import ROOT, tell
from tests.cluster.conftest import restricted
from tests.rig import binaries, registry
from tests.rig.cluster import Cluster
from tests.rig.installation import ARCHIVES
from tests.rig.node.layout import Node

DIGITS = ROOT / "examples" / "digits"
SHELLS = {"ash", "bash", "busybox", "dash", "ksh", "rbash", "sh", "toybox", "zsh"}
ENTRYPOINTS = {
    "builder": ["python"],
    "operator": ["penstock", "operator"],
    "router": ["penstock", "router"],
    "serve": ["python", "-m", "serving"],
    "triton": ["python", "-m", "serving"],
}
LOOK = """
import errno, glob, importlib.metadata, json, os, re, sys

def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]

(bill,) = glob.glob("/usr/share/sbom/*.cdx.json")
listed = {c["purl"] for c in json.load(open(bill))["components"] if c["purl"].startswith("pkg:pypi/")}
found = {f"pkg:pypi/{re.sub('[-_.]+', '-', d.name).lower()}@{d.version}" for d in importlib.metadata.distributions()}
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "writes": [refused("/x"), refused("/opt/penstock/x"), refused("/tmp/x")],
    "shell": os.path.exists("/bin/sh"),
    "unlisted": sorted(found ^ listed),
}))
"""
QUANTIZE = """
import json, numpy, onnx, onnxruntime
from onnxruntime import quantization

class Calibration(quantization.CalibrationDataReader):
    def __init__(self): self.left = iter(inputs)
    def get_next(self): return next(({"image": x[None]} for x in self.left), None)

inputs = numpy.load("/models/calibration.npz")["x"]
# By its content: of a path it would write what it infers into the model's folder, which is read-only.
quantization.quantize_static(onnx.load("/models/model.onnx"), "/tmp/int8.onnx", Calibration())
kinds = {node.op_type for node in onnx.load("/tmp/int8.onnx").graph.node}
sessions = [onnxruntime.InferenceSession(path) for path in ("/models/model.onnx", "/tmp/int8.onnx")]
read = [session.run(["scores"], {"image": inputs})[0].argmax(1) for session in sessions]
print(json.dumps({"quantized": "QuantizeLinear" in kinds, "agree": float((read[0] == read[1]).mean())}))
"""
ASK = """
import json, urllib.request
answer = urllib.request.urlopen("http://127.0.0.1:8080/v2/models/digits/infer", open("/models/seven.json", "rb").read())
scores = json.load(answer)["outputs"][0]["data"]
print(json.dumps({"digit": scores.index(max(scores))}))
"""
CPUS = "from serving.engines import cpu; print(cpu.limit())"


@pytest.fixture(scope="module")
def images(node: Node) -> Mapping[str, Built]:
    """Every image, built where it is out of date."""
    return build((), ARCHIVES, tell)


def reference(cluster: Cluster, name: str) -> str:
    """The image's name for a pod's spec, brought to the node."""
    full = f"penstock-{name}"

    def made() -> pathlib.Path:
        build([name], ARCHIVES, tell)
        return ARCHIVES / f"{full}.tar"

    version = inputs.of(name, "any").version
    return cluster.image(f"{full}:{version}", made)


def start(cluster: Cluster, namespace: str, name: str, *command: str, **container: Any) -> None:
    """A pod named as its image, with a memory /tmp and the files of the ConfigMap `digits` in /models."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "models", "mountPath": "/models"}]
    spec = {
        "restartPolicy": "Never",
        **restricted(reference(cluster, name), *command, volumeMounts=mounts, **container),
    }
    spec["volumes"] = [
        {"name": "tmp", "emptyDir": {"medium": "Memory"}},
        {"name": "models", "configMap": {"name": "digits", "optional": True}},
    ]
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.apply(made, namespace=namespace)


def ended(cluster: Cluster, namespace: str, name: str) -> Any:
    """What a pod printed as its last line, once it ended well; its log is the failure otherwise."""

    def phase() -> str:
        return str(cluster.get("pod", name, namespace=namespace)["status"]["phase"])

    cluster.until(f"pod {name} ended", lambda: phase() in ("Succeeded", "Failed"))
    said = cluster.kubectl("-n", namespace, "logs", name)
    assert phase() == "Succeeded", said
    return json.loads(said.splitlines()[-1])


def digits(cluster: Cluster, namespace: str, *files: str) -> None:
    given = [f"--from-file={DIGITS / file}" for file in files]
    cluster.kubectl("-n", namespace, "create", "configmap", "digits", *given)


def test_every_image_runs_restricted_on_a_read_only_root_and_lists_what_it_holds(
    cluster: Cluster, namespace: str
) -> None:
    for name in inputs.NAMES:
        start(cluster, namespace, name, "python", "-c", LOOK)
    assert {name: ended(cluster, namespace, name) for name in inputs.NAMES} == {
        name: {"user": [65532, 65532], "writes": ["EROFS", "EROFS", None], "shell": False, "unlisted": []}
        for name in inputs.NAMES
    }


@pytest.mark.parametrize("name", ["serve", "triton"])
def test_a_server_answers_in_an_image_that_has_no_shell(cluster: Cluster, namespace: str, name: str) -> None:
    digits(cluster, namespace, "next/model.onnx", "seven.json")
    ready = {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 1}
    args = [name, "--host=0.0.0.0", "--name=digits", "/models/model.onnx"]
    start(cluster, namespace, name, args=args, readinessProbe=ready)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    assert json.loads(cluster.kubectl("-n", namespace, "exec", name, "--", "python", "-c", ASK)) == {"digit": 7}
    with pytest.raises(Exception, match="no such file"):
        cluster.kubectl("-n", namespace, "exec", name, "--", "/bin/sh", "-c", "true")


def test_a_limit_of_half_a_cpu_is_one_thread_for_an_engine(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, "serve", "python", "-c", CPUS, resources={"limits": {"cpu": "500m"}})
    assert ended(cluster, namespace, "serve") == 1


def test_the_builder_quantizes_digits_and_the_result_reads_them_alike(cluster: Cluster, namespace: str) -> None:
    digits(cluster, namespace, "next/model.onnx", "calibration.npz")
    start(cluster, namespace, "builder", args=["-c", QUANTIZE])
    made = ended(cluster, namespace, "builder")
    assert made["quantized"]
    assert made["agree"] >= 0.97


@pytest.mark.parametrize("name", inputs.NAMES)
def test_an_archive_names_its_user_entrypoint_and_origin(images: Mapping[str, Built], name: str) -> None:
    made = archive.configuration(ARCHIVES / f"penstock-{name}.tar")
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in made["Labels"].items()}
    assert (made["User"], made["Entrypoint"]) == ("65532:65532", ENTRYPOINTS[name])
    assert labels["title"] == f"penstock-{name}"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] == images[f"penstock-{name}"].revision
    assert {"description", "version", "created", "base.name"} <= labels.keys()


@pytest.mark.parametrize("name", inputs.NAMES)
def test_an_archive_holds_no_shell_and_nothing_that_installs(images: Mapping[str, Built], name: str) -> None:
    files = archive.files(ARCHIVES / f"penstock-{name}.tar")
    programs = {pathlib.PurePath(file).name for file in files if "bin" in pathlib.PurePath(file).parts}
    assert programs & (SHELLS | {"apt", "dpkg", "pip", "uv"}) == set()
    packages = {pathlib.PurePath(file).name for file in files if pathlib.PurePath(file).parent.name == "site-packages"}
    assert packages & {"pip", "setuptools", "uv", "hatchling", "wheel"} == set()


@pytest.mark.parametrize("name", inputs.NAMES)
def test_the_table_of_sizes_is_what_the_archive_holds(images: Mapping[str, Built], name: str) -> None:
    full = f"penstock-{name}"
    made = recorded(ARCHIVES)[full]
    assert archive.measured(ARCHIVES / f"{full}.tar") == (made.digest, made.compressed_bytes, made.unpacked_bytes)
    assert (ARCHIVES / f"{full}.cdx.json").read_bytes() == archive.bill_of_materials(ARCHIVES / f"{full}.tar", full)


def test_a_registry_has_an_image_by_the_digest_of_its_archive(
    images: Mapping[str, Built], tmp_path: pathlib.Path
) -> None:
    router = {"penstock-router": images["penstock-router"]}
    (tmp_path / "images.json").write_text(json.dumps({name: vars(image) for name, image in router.items()}))
    (tmp_path / "penstock-router.tar").symlink_to(ARCHIVES / "penstock-router.tar")
    program = binaries.find(binaries.REGISTRY, os.environ, tell)
    with registry.running(program, tmp_path / "registry") as running:
        pushed = release.push(f"{running.host}/example", tmp_path, tell, plain_http=True)
    assert pushed == {"penstock-router": images["penstock-router"].digest}
