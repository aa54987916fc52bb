"""The journey on a real cluster: apply, ask, look, delete; with the laptop's YAML and with a bucket's URI."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import threading

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils as triton_utils

from serving.contract import MODEL_METADATA_KEY
from tests.cluster.digits import Digits
from tests.rig.cluster import Cluster
from tests.rig.installation import GRPC_PORT, HTTP_PORT, Installation
from tests.rig.load import FIRST, Array, answer_of, sample
from tests.rig.node.layout import Node
from tests.rig.s3 import Server


@pytest.fixture
def digits(cluster: Cluster, penstock: Installation, namespace: str, buckets: Server, tmp_path: pathlib.Path) -> Digits:
    return Digits(cluster, namespace, buckets, tmp_path, {})


def by_rest(node: Node, namespace: str, x: Array) -> Array:
    client = triton_http.InferenceServerClient(f"{node.address}:{HTTP_PORT}/{namespace}/digits")
    given = triton_http.InferInput("image", list(x.shape), "FP32")
    given.set_data_from_numpy(x)
    return np.asarray(client.infer("digits", [given]).as_numpy("scores"))


def by_grpc(node: Node, namespace: str, x: Array) -> Array:
    with triton_grpc.InferenceServerClient(f"{node.address}:{GRPC_PORT}") as client:
        given = triton_grpc.InferInput("image", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        answer = client.infer("digits", [given], headers={MODEL_METADATA_KEY: f"{namespace}/digits"})
        return np.asarray(answer.as_numpy("scores"))


def test_the_laptops_yaml_serves_in_the_cluster_and_leaves_nothing(
    cluster: Cluster, digits: Digits, node: Node
) -> None:
    before = cluster.everything(digits.namespace)
    said = digits.apply("first")
    assert "models/digits created" in said
    digits.serving()

    x = sample()
    expected = answer_of(FIRST, x)
    assert np.array_equal(by_rest(node, digits.namespace, x), expected)
    assert np.array_equal(by_grpc(node, digits.namespace, x), expected)
    assert "seven" in digits.penstock("infer", "digits", "--input", str(FIRST.parent / "seven.png"))

    cluster.kubectl("-n", digits.namespace, "delete", "model", "digits")
    cluster.until("nothing is left", lambda: cluster.everything(digits.namespace) == before)


def test_kubectl_apply_of_a_bucket_s_uri_gives_the_same_answers(
    cluster: Cluster, digits: Digits, buckets: Server, node: Node
) -> None:
    artifact = FIRST.parent / "model.onnx"
    shutil.copy(artifact, buckets.folder / "models" / "digits.onnx")
    digest = f"sha256:{hashlib.sha256(artifact.read_bytes()).hexdigest()}"
    source = {"uri": "s3://models/digits.onnx", "digest": digest}
    model = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"}}
    cluster.apply({**model, "spec": {"source": source}}, namespace=digits.namespace)
    digits.serving()

    x = sample()
    expected = answer_of(FIRST, x)
    assert np.array_equal(by_rest(node, digits.namespace, x), expected)
    assert np.array_equal(by_grpc(node, digits.namespace, x), expected)


class Witness(threading.Thread):
    """Looks at the Model, asks it, and looks again, over and over: what its columns said, and whether it answered."""

    def __init__(self, digits: Digits, node: Node) -> None:
        super().__init__()
        self._digits = digits
        self._node = node
        self._ended = threading.Event()
        self.seen: list[tuple[str, bool, str]] = []

    def run(self) -> None:
        x = sample()
        while not self._ended.is_set():
            before = self._columns()
            try:
                by_rest(self._node, self._digits.namespace, x)
                answered = True
            except (triton_utils.InferenceServerException, OSError):
                answered = False
            self.seen.append((before, answered, self._columns()))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _columns(self) -> str:
        """READY and REASON as ``kubectl get models`` prints them; nothing where there is no Model."""
        printed = self._digits.cluster.kubectl("-n", self._digits.namespace, "get", "models", "--no-headers")
        return " ".join(printed.split()[1:3])


def test_kubectl_get_models_tells_the_truth_from_the_first_moment_to_the_last(
    cluster: Cluster, digits: Digits, node: Node
) -> None:
    witness = Witness(digits, node)
    witness.start()
    try:
        digits.apply("first")
        first = digits.serving()
        digits.apply("next")
        assert digits.serving() != first
        cluster.kubectl("-n", digits.namespace, "delete", "model", "digits")
        cluster.until("it has seen the Model go", lambda: witness.seen[-1][2] == "" and not witness.seen[-1][1])
    finally:
        witness.end()
    ready = [
        answered for before, answered, after in witness.seen if before.split()[:1] == after.split()[:1] == ["True"]
    ]
    assert ready, witness.seen
    assert all(ready), witness.seen
    starting = [answered for before, answered, after in witness.seen if before == after != "" and "True" not in before]
    assert starting, witness.seen
    assert not any(starting), witness.seen


def test_plain_kubectl_apply_of_a_path_is_refused_with_what_to_do(cluster: Cluster, digits: Digits) -> None:
    with pytest.raises(subprocess.SubprocessError, match="penstock apply"):
        cluster.kubectl("-n", digits.namespace, "apply", "-f", str(FIRST))
