"""What goes to a Service goes to the API server, with the user's token, and comes back as it was said."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from operators.cli import service_proxy
from operators.cli.cluster import ClusterClient

PLACE = "/api/v1/namespaces/penstock-system/services/http:penstock-router:80/proxy/team/digits/v2/models/digits"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://penstock-router.penstock-system/team/digits/v2/models/digits", PLACE),
        ("https://r.ns.svc/x?y=%2F", "/api/v1/namespaces/ns/services/https:r:443/proxy/x?y=%2F"),
        ("http://r.ns.svc.cluster.local:8000/x", "/api/v1/namespaces/ns/services/http:r:8000/proxy/x"),
        ("http://localhost:8080/x", None),
        ("http://127.0.0.1:8080/x", None),
        ("https://models.team.example.com/x", None),
    ],
)
def test_names_that_only_a_cluster_knows_are_found_at_its_api_server(url: str, expected: str | None) -> None:
    assert service_proxy.path(url) == expected


class ApiServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        for name in ("Authorization", "Inference-Header-Content-Length", "Content-Type"):
            self.send_header(f"Seen-{name}", self.headers[name])
        self.send_header("Seen-Path", self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def opened(folder: pathlib.Path, port: int) -> ClusterClient:
    (folder / "config").write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        f' clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}],'
        " users: [{name: u, user: {token: secret}}]}"
    )
    return ClusterClient.open(str(folder / "config"), None, None)


@pytest.fixture
def api(tmp_path: pathlib.Path) -> Iterator[ClusterClient]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ApiServer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield opened(tmp_path, server.server_port)
        server.shutdown()


def test_a_request_arrives_whole_and_with_the_token(api: ClusterClient) -> None:
    url = "http://penstock-router.penstock-system/team/digits/v2/models/digits"
    headers = {"Inference-Header-Content-Length": "2", "Content-Type": "application/octet-stream"}
    with httpx.Client(transport=api.way_to(url)) as client:
        answer = client.post(url, content=b"{}\x00\xff", headers=headers)
    assert (answer.status_code, answer.content) == (201, b"{}\x00\xff")
    assert {name: value for name, value in answer.headers.items() if name.startswith("seen-")} == {
        "seen-path": PLACE,
        "seen-authorization": "Bearer secret",
        "seen-inference-header-content-length": "2",
        "seen-content-type": "application/octet-stream",
    }


def test_an_api_server_that_is_gone_is_an_error_of_the_client(tmp_path: pathlib.Path) -> None:
    url = "http://penstock-router.penstock-system/x"
    with httpx.Client(transport=opened(tmp_path, 1).way_to(url)) as client, pytest.raises(httpx.ConnectError):
        client.get(url)
