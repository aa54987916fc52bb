"""What a registry on loopback with a login cannot show: tokens, and being sent elsewhere."""

import hashlib
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.artifacts import storage
from serving.artifacts.storage import Access
from serving.errors import ArtifactRefused

DATA = b"weights"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
LAYER = {
    "mediaType": "application/octet-stream",
    "digest": DIGEST,
    "size": len(DATA),
    "annotations": {"org.opencontainers.image.title": "model.onnx"},
}


class Server(ThreadingHTTPServer):
    """Wants a token of its own; its blobs are at ``blobs``. ``seen`` is each path and its Authorization."""

    blobs = ""
    seen: list[tuple[str, str | None]]


class Registry(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        authorization = self.headers["Authorization"]
        self.server.seen.append((self.path, authorization))
        if self.path.startswith("/token"):
            self._answer(200, json.dumps({"token": "given"}).encode())
        elif self.path.startswith("/stored"):
            self._answer(200, DATA)
        elif authorization != "Bearer given":
            realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="a, b",scope="repository:digits:pull"'
            self._answer(401, b"{}", ("WWW-Authenticate", realm))
        elif "/manifests/" in self.path:
            self._answer(200, json.dumps({"layers": [LAYER]}).encode())
        else:
            self._answer(307, b"", ("Location", self.server.blobs))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Registry) as made:
        made.seen = []
        threading.Thread(target=made.serve_forever, args=(0.01,)).start()
        yield made
        made.shutdown()


def test_a_token_is_asked_for_with_the_login_and_stays_with_the_registry(server: Server, tmp_path: Path) -> None:
    registry = f"127.0.0.1:{server.server_port}"
    server.blobs = f"http://localhost:{server.server_port}/stored"
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"username": "me", "password": "secret"}}}))

    storage.fetch(f"oci://{registry}/digits", DIGEST, to=tmp_path / "to", access=Access(docker_config=tmp_path))

    assert (tmp_path / "to" / "model.onnx").read_bytes() == DATA
    assert server.seen == [
        ("/v2/digits/manifests/latest", None),
        ("/token?service=a%2C+b&scope=repository%3Adigits%3Apull", f"Basic {b64encode(b'me:secret').decode()}"),
        ("/v2/digits/manifests/latest", "Bearer given"),
        (f"/v2/digits/blobs/{DIGEST}", "Bearer given"),
        ("/stored", None),
    ]


def test_a_login_is_given_to_no_other_registry(server: Server, tmp_path: Path) -> None:
    registry = f"127.0.0.1:{server.server_port}"
    server.blobs = "/stored"
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"127.0.0.1:1": {"auth": "c2VjcmV0"}}}))

    storage.fetch(f"oci://{registry}/digits", DIGEST, to=tmp_path / "to", access=Access(docker_config=tmp_path))

    assert not [sent for _, sent in server.seen if sent and sent.startswith("Basic")]


def test_nothing_is_read_without_encryption_where_a_registry_sends_us(server: Server, tmp_path: Path) -> None:
    uri = f"oci://127.0.0.1:{server.server_port}/digits"
    server.blobs = "http://bucket.invalid/stored?signature=secret"

    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(uri, DIGEST, to=tmp_path / "to")

    assert str(refused.value) == (
        f"{uri}: http://bucket.invalid/stored is not encrypted; where that is meant, "
        "allow it: PENSTOCK_PLAIN_HTTP=bucket.invalid"
    )


@pytest.mark.parametrize(
    "uri", ["oci://registry", "oci://host/Upper", "oci://host/a:b:c", "oci://host/a@sha256:1", "oci://u:p@h/a"]
)
def test_what_names_no_artifact_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(uri, None, to=tmp_path / "to")

    assert str(refused.value) == (
        f"{uri} names no artifact; expected oci://REGISTRY/REPOSITORY:TAG, or …@sha256: and 64 hex digits"
    )
