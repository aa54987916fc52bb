"""Variants made on a real node: the laptop's YAML, a builder that is killed half-way, and what is served in the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
import tritonclient.http as triton_http

from tests.cluster.digits import Digits
from tests.rig.cluster import Cluster
from tests.rig.installation import HTTP_PORT, Installation
from tests.rig.load import DIGITS, Array, sample
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

EVALUATION = {
    "dataset": {"uri": str(DIGITS / "eval.npz")},
    "maxDrop": 0.01,
    "worstSlice": {"by": "label", "maxDrop": 0.05},
}
LEARNT = {"ratio": 0.75, "training": {"data": {"uri": str(DIGITS / "train.npz")}}}


@pytest.fixture
def store(buckets: Server) -> Iterator[pathlib.Path]:
    """The folder behind the artifact store; what this test's builds tell there goes with it."""
    folder = buckets.folder / "models" / "store"
    before = set(folder.glob("builds/*"))
    yield folder
    for made in set(folder.glob("builds/*")) - before:
        for file in made.iterdir():
            file.unlink()


class Built(Digits):
    """The digits with variants."""

    def condition(self, type_: str) -> tuple[str, str]:
        """Reason and message."""
        found = self.object().get("status", {}).get("conditions", [])
        return next(((c["reason"], c["message"]) for c in found if c["type"] == type_), ("", ""))

    def variants(self) -> dict[str, tuple[str, str]]:
        """State and reason by name."""
        found = self.object()["status"]["variants"]
        return {one["name"]: (one["state"], one["reason"]) for one in found}

    def builders(self) -> list[dict[str, Any]]:
        """Pods that make variants."""
        listed = self.cluster.kubectl("-n", self.namespace, "get", "pods", "-l", "penstock.dev/build", "-o=json")
        found: list[dict[str, Any]] = json.loads(listed)["items"]
        return found

    def until(self, what: str, holds: Any) -> None:
        try:
            self.cluster.until(what, holds, 240)
        except AssertionError as error:
            pods = self.cluster.kubectl("-n", self.namespace, "describe", "jobs,pods,model/digits")
            raise AssertionError(f"{error}\n{pods}") from None

    def until_served(self, variant: str) -> str:
        """Wait until a variant has all traffic; its line of ``kubectl get models``."""
        self.until(f"{variant} serves", lambda: self.settled() and self.object()["status"]["variant"] == variant)
        return self.cluster.kubectl("-n", self.namespace, "get", "models", "digits", "--no-headers")

    def answers(self, node: Node, x: Array) -> Array:
        client = triton_http.InferenceServerClient(f"{node.address}:{HTTP_PORT}/{self.namespace}/digits")
        given = triton_http.InferInput("image", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        return np.asarray(client.infer("digits", [given]).as_numpy("scores"))


def kill_builder(digits: Built) -> None:
    """The builder's process, as the kernel would for want of memory."""
    (pod,) = digits.builders()
    uid = pod["metadata"]["uid"].replace("-", "[-_]")
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error, OSError):
            groups = pathlib.Path(f"/proc/{process.pid}/cgroup").read_text()
            if "serving build" in " ".join(process.info["cmdline"] or [])[:200] and re.search(uid, groups):
                process.kill()
                return
    raise AssertionError(f"no builder of pod {pod['metadata']['name']} runs here")


def keys_seen_by_a_neighbour(digits: Built) -> str:
    """The builder's environment, as another process of its container reads it, such as a stage."""
    (pod,) = digits.builders()
    code = "try: print(open('/proc/1/environ').read())\nexcept OSError as error: print(error)"
    return digits.cluster.kubectl("-n", digits.namespace, "exec", pod["metadata"]["name"], "--", "python", "-c", code)


def stored(store: pathlib.Path) -> set[str]:
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}


def test_the_best_variant_is_found_and_served_although_the_builder_is_killed(
    cluster: Cluster,
    penstock: Installation,
    namespace: str,
    buckets: Server,
    store: pathlib.Path,
    node: Node,
    tmp_path: pathlib.Path,
) -> None:
    before = cluster.everything(namespace)
    digits = Built(cluster, namespace, buckets, tmp_path, {"variants": "auto", "evaluation": EVALUATION})
    secrets = cluster.everything(namespace) - before
    digits.apply("first")
    uploaded = stored(store)

    # The source serves, and the status tells how far the build is.
    quantized = r"model digits: variants are being made: (auto-\S+: evaluate|measure) \(\d+%(, about \d+ min left)?\)"
    digits.until(
        "a variant is made, and proved or measured",
        lambda: re.fullmatch(quantized, digits.condition("VariantsReady")[1]) is not None,
    )
    assert "Permission denied" in keys_seen_by_a_neighbour(digits)
    kill_builder(digits)
    assert stored(store) == uploaded, "half a build was published"
    digits.until("the source serves", lambda: digits.condition("Ready")[0] == "Serving")
    assert digits.condition("VariantsReady")[0] == "Building"

    assert re.search(r"\bauto-int8\b.*\b\d+\.\dx\b", digits.until_served("auto-int8"))
    (pod,) = digits.builders()
    (container,) = pod["status"]["containerStatuses"]
    assert container["restartCount"] == 1
    new = stored(store) - uploaded
    (told,) = (path for path in new if path.endswith("report.json"))
    report = json.loads((store / told).read_text())
    (int8,) = (one for one in report["variants"] if one["name"] == "auto-int8")
    assert [(made["pass"], made["again"]) for made in int8["made"]] == [("quantize", True)]
    model = f"{int8['digest'].replace(':', '-')}/model.onnx"
    assert new == {told, told.replace("json", "html"), model} - uploaded
    assert f"sha256:{hashlib.sha256((store / model).read_bytes()).hexdigest()}" == int8["digest"]

    x = sample()
    session = onnxruntime.InferenceSession(store / model, providers=["CPUExecutionProvider"])
    assert np.array_equal(digits.answers(node, x), session.run(["scores"], {"image": x})[0])
    described = cluster.kubectl("-n", namespace, "describe", "model", "digits")
    assert re.search(r"BuildStarted\s.*penstock", described)
    assert re.search(r"BuildDone\s.*variant auto-int8 is selected, \d+\.\dx", described)

    # What came of it does not go with its pod.
    cluster.kubectl("-n", namespace, "delete", "pod", pod["metadata"]["name"])
    cluster.kubectl("-n", namespace, "annotate", "model", "digits", "example.com/look=again")
    assert digits.variants()["auto-int8"][0] == "Selected"
    cluster.kubectl("-n", namespace, "delete", "model", "digits")
    cluster.until("nothing is left", lambda: cluster.everything(namespace) == before | secrets)


def test_what_needs_a_toolchain_is_refused_and_the_others_are_made(
    cluster: Cluster,
    penstock: Installation,
    namespace: str,
    buckets: Server,
    store: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    variants = [
        {"name": "fp32"},
        {"name": "int8", "passes": [{"quantize": {"calibration": {"uri": str(DIGITS / "calibration.npz")}}}]},
        {"name": "pruned", "passes": [{"prune": LEARNT}]},
    ]
    digits = Built(cluster, namespace, buckets, tmp_path, {"variants": variants, "evaluation": EVALUATION})
    digits.apply("first")
    digits.until_served("int8")
    state, why = digits.variants()["pruned"]
    assert state == "Refused"
    assert why.startswith("it needs the toolchain torch, which this builder lacks; make it elsewhere with `penstock ")
