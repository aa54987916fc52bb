from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import makers
from operators.api.plan import Fetch, Workload
from operators.api.resources import Resources
from operators.api.status import Otherwise
from operators.planning import runtimes
from serving.contract import Env

DIGEST = "sha256:" + "a" * 64


def pod(
    uri: str, cache_url: str | None = None, settings: str = "", otherwise: Otherwise | None = None
) -> dict[str, Any]:
    runtime = runtimes.builtin("penstock-serve:1", "python3")["onnxruntime"]
    artifact = Fetch(uri, DIGEST)
    workload = Workload(
        "digits-1-a", "team", "digits", "1", "a", artifact, runtime, 1, Resources(), settings, otherwise
    )
    return makers.pod(workload, "penstock-serve:1", cache_url)


def secrets(container: dict[str, Any], spec: dict[str, Any]) -> set[str]:
    """Names of the Secrets that a container sees, whichever way."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = [volumes[mount["name"]].get("secret", {}).get("secretName") for mount in container["volumeMounts"]]
    named = [source.get("secretRef", {}).get("name") for source in container.get("envFrom", [])]
    named += [e["valueFrom"]["secretKeyRef"]["name"] for e in container.get("env", []) if "valueFrom" in e]
    return {name for name in mounted + named if name}


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("s3://models/digits.onnx", {"penstock-storage"}),
        ("pvc://store/digits", {"penstock-storage"}),
        ("oci://registry.example/digits:1", {"penstock-storage", "penstock-registry"}),
    ],
)
def test_credentials_are_seen_by_the_container_that_fetches_and_by_no_other(uri: str, seen: set[str]) -> None:
    spec = pod(uri)
    (fetch,), (engine,) = spec["initContainers"], spec["containers"]
    assert (secrets(fetch, spec), secrets(engine, spec)) == (seen, set())


def test_an_engine_may_write_temporary_files_and_shared_memory_both_in_memory() -> None:
    spec = pod("s3://models/digits.onnx")
    (engine,) = spec["containers"]
    written = {mount["name"]: mount["mountPath"] for mount in engine["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"tmp": "/tmp", "shm": "/dev/shm"}
    volumes = {volume["name"]: volume.get("emptyDir") for volume in spec["volumes"]}
    assert [volumes[name] for name in written] == [{"medium": "Memory"}] * 2


def test_a_claim_is_mounted_read_only_where_the_fetch_alone_sees_it() -> None:
    spec = pod("pvc://store/models/digits")
    (fetch,), (engine,) = spec["initContainers"], spec["containers"]
    assert {"name": "source", "persistentVolumeClaim": {"claimName": "store", "readOnly": True}} in spec["volumes"]
    assert {"name": "source", "mountPath": "/mnt/source", "readOnly": True} in fetch["volumeMounts"]
    assert fetch["args"][:3] == ["fetch", "--uri", "file:///mnt/source/models/digits"]
    assert "source" not in {mount["name"] for mount in engine["volumeMounts"]}


def test_a_pod_on_a_processor_of_another_kind_fetches_the_other_variant() -> None:
    other = Otherwise(for_cpu=("avx512_vnni", "avx_vnni"), variant="fp32", uri="pvc://store/m.onnx", digest=DIGEST)
    spec = pod("s3://models/int8.onnx", otherwise=other)
    (fetch,), (engine,) = spec["initContainers"], spec["containers"]
    assert fetch["args"] == [
        "fetch", "--uri", "s3://models/int8.onnx", "--digest", DIGEST, "--to", "/mnt/models",
        "--for-cpu", "avx512_vnni,avx_vnni", "--otherwise", f"fp32=file:///mnt/otherwise/m.onnx@{DIGEST}",
    ]  # fmt: skip
    assert {"name": "otherwise", "mountPath": "/mnt/otherwise", "readOnly": True} in fetch["volumeMounts"]
    assert "otherwise" not in {mount["name"] for mount in engine["volumeMounts"]}

    from_registry = other.model_copy(update={"uri": "oci://registry.example/digits:1"})
    spec = pod("s3://models/int8.onnx", otherwise=from_registry)
    assert secrets(spec["initContainers"][0], spec) == {"penstock-storage", "penstock-registry"}


def test_the_container_that_fetches_is_told_of_a_cache_where_there_is_one() -> None:
    def environment(spec: dict[str, Any]) -> dict[str, str]:
        return {e["name"]: e["value"] for e in spec["initContainers"][0]["env"]}

    url = "http://penstock-cache.penstock-system:8083"
    assert environment(pod("s3://m/m", url)) == environment(pod("s3://m/m")) | {"PENSTOCK_CACHE_URL": url}


@pytest.mark.parametrize("settings", ["", '{"batching": {"maxSize": 8}}'])
def test_what_a_model_says_of_its_engine_is_told_to_its_container(settings: str) -> None:
    (engine,) = pod("s3://models/digits.onnx", settings=settings)["containers"]

    told = [entry["value"] for entry in engine["env"] if entry["name"] == Env.SETTINGS]

    assert told == ([settings] if settings else [])
