"""TLS from the router with a Secret's certificate: REST and gRPC on one port, and a certificate that is replaced."""

from __future__ import annotations

import json
import pathlib
import ssl
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from serving.contract import MODEL_METADATA_KEY
from tests.cluster.digits import Digits
from tests.rig.certificates import Authority
from tests.rig.cluster import Cluster
from tests.rig.installation import NAMESPACE, Installation
from tests.rig.load import DIGITS, FIRST, answer_of, sample
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

PORT = 30443
SECRET = "penstock-router-cert"


class Certificate:
    """A Secret as cert-manager or a person writes it, by an authority that clients trust."""

    def __init__(self, cluster: Cluster, node: Node, folder: pathlib.Path) -> None:
        self.authority = Authority(node.address)
        self.folder = folder
        self._cluster = cluster

    def renew(self) -> str:
        """A new pair in the Secret; the certificate."""
        self.authority.issue(self.folder)
        pair = {name: (self.folder / name).read_text() for name in ("tls.crt", "tls.key")}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "type": "kubernetes.io/tls"}
        self._cluster.apply({**secret, "stringData": pair}, namespace=NAMESPACE)
        return pair["tls.crt"]


@pytest.fixture
def certificate(cluster: Cluster, penstock: Installation, node: Node, tmp_path: pathlib.Path) -> Iterator[Certificate]:
    """The router with TLS, for the time of a test."""
    made = Certificate(cluster, node, tmp_path / "tls")
    made.renew()
    penstock.apply(f"--set=router.tls.secretName={SECRET},router.service.nodePorts.https={PORT}")
    yield made
    penstock.apply()
    cluster.kubectl("-n", NAMESPACE, "delete", "secret", SECRET)


def test_rest_and_grpc_are_answered_with_tls_and_a_renewed_certificate_is_used_by_the_same_pods(
    cluster: Cluster,
    certificate: Certificate,
    namespace: str,
    buckets: Server,
    node: Node,
    tmp_path: pathlib.Path,
) -> None:
    digits = Digits(cluster, namespace, buckets, tmp_path, {})
    digits.apply("first")
    digits.serving()
    x = sample()
    expected = answer_of(FIRST, x)
    address = f"{node.address}:{PORT}"

    trusted = ssl.create_default_context(cadata=certificate.authority.pem.decode())
    with httpx.Client(verify=trusted) as client:
        question = json.loads((DIGITS / "seven.json").read_text())
        answer = client.post(f"https://{address}/{namespace}/digits/v2/models/digits/infer", json=question)
        scores = answer.json()["outputs"][0]["data"]
        assert (answer.status_code, int(np.argmax(scores))) == (200, 7)
    (tmp_path / "authority.pem").write_bytes(certificate.authority.pem)
    with triton_grpc.InferenceServerClient(
        address, ssl=True, root_certificates=str(tmp_path / "authority.pem")
    ) as channel:
        given = triton_grpc.InferInput("image", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        found = channel.infer("digits", [given], headers={MODEL_METADATA_KEY: f"{namespace}/digits"})
        assert np.array_equal(found.as_numpy("scores"), expected)

    selector = ("-l", "app.kubernetes.io/component=router", "-o=name")
    before = cluster.kubectl("-n", NAMESPACE, "get", "pods", *selector)
    renewed = certificate.renew()

    def presented() -> bool:
        # Each connection may meet either replica.
        return all(ssl.get_server_certificate((node.address, PORT)) == renewed for _ in range(10))

    cluster.until("every replica presents the new certificate", presented, 180)
    assert cluster.kubectl("-n", NAMESPACE, "get", "pods", *selector) == before
