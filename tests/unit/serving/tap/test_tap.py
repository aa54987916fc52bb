"""A real server whose copies go to a router that leads them where each test says."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract import GRPC_SERVICE, MIRROR_HEADER, SHADOW_HEADER, SHADOW_PATH, TAP_HEADER, Env
from serving.protocols import grpc, v2
from serving.requests import Request, Response, Wanted
from serving.tap import tap
from serving.tap.tap import Copy, Tap, Told
from serving.tensors import Tensor
from tests.rig import model_server, onnx_models
from tests.rig.model_server import ModelServer

Answer = Callable[[bytes, int], tuple[int, bytes, dict[str, str]]]
SECRET = "s" * 64
X = [[1.0, 2.0, 3.0, 4.0]]
JSON_BODY = json.dumps({"id": "r-7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": X}]})


@dataclasses.dataclass
class Router:
    """Answers copies as ``answer`` does and keeps what came of them."""

    port: int = 0
    answer: Answer = lambda body, length: (503, b"nobody", {})
    feedback: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    asked: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    """Path, revision and secret of each copy."""

    @property
    def told(self) -> Told:
        return Told("127.0.0.1", self.port, "team", SECRET)


@contextlib.contextmanager
def routing() -> Iterator[Router]:
    router = Router()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, answer = 204, b""
            headers: dict[str, str] = {}
            if self.path.endswith("/feedback"):
                router.feedback.append(json.loads(body))
            else:
                router.asked.append((self.path, self.headers[SHADOW_HEADER], self.headers[TAP_HEADER]))
                status, answer, headers = router.answer(body, int(self.headers["inference-header-content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what is asked is in ``asked``."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.daemon_threads = True
        router.port = served.server_port
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield router
        served.shutdown()


def answering(*scores: float, name: str = "y") -> Answer:
    """Says these scores to whatever is asked, as floats in JSON."""
    output = {"name": name, "datatype": "FP32", "shape": [1, len(scores)], "data": list(scores)}
    return lambda body, length: (200, json.dumps({"outputs": [output]}).encode(), {})


def mirror(revision: str = "r2", **compare: object) -> dict[str, str]:
    said = json.dumps({"revision": revision, "compare": compare}).encode()
    return {MIRROR_HEADER: base64.urlsafe_b64encode(said).decode()}


@contextlib.contextmanager
def serving(folder: Path, router: Router, scale: float = 2.0) -> Iterator[ModelServer]:
    """``m``: x FP32 [-1, 4] times ``scale``."""
    onnx_models.linear(folder / "m.onnx", scale)
    env: dict[str, str] = {Env.ROUTER: f"127.0.0.1:{router.port}", Env.TAP_SECRET: SECRET, Env.NAMESPACE: "team"}
    with model_server.running("serve", str(folder / "m.onnx"), env={**os.environ, **env}) as server:
        yield server


def shown(server: ModelServer) -> dict[str, Any]:
    status, page = server.get(SHADOW_PATH)
    assert status == 200, page
    document: dict[str, Any] = json.loads(page)
    return document


def until_done(server: ModelServer, count: int) -> dict[str, Any]:
    """What is shown once so many copies have come to an end."""
    found: dict[str, Any] = {}

    def is_done() -> bool:
        found.update(shown(server))
        return bool(found["agreed"] + found["disagreed"] + found["lost"] >= count)

    model_server.until(is_done, f"{count} copies come to an end")
    return found


def own_answer(server: ModelServer) -> list[float]:
    status, said = server.request("POST", "/v2/models/m/infer", JSON_BODY.encode())
    assert status == 200, said
    values: list[float] = json.loads(said)["outputs"][0]["data"]
    return values


def test_a_request_by_any_protocol_is_asked_of_the_other_revision_as_the_same_tensors(tmp_path: Path) -> None:
    with routing() as router, serving(tmp_path, router) as server:
        bodies = []

        def forwarded(body: bytes, length: int) -> tuple[int, bytes, dict[str, str]]:
            bodies.append(v2.decode(body, length))
            return answering(*own)(body, length)

        own = own_answer(server)
        router.answer = forwarded
        message = grpc.InferRequest(model_name="m", id="g-1")
        tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        tensor.contents.fp32_contents.extend(X[0])
        payload = message.SerializeToString()
        call = b"\0" + len(payload).to_bytes(4, "big") + payload
        asked: list[tuple[str, bytes, dict[str, str]]] = [
            ("/v2/models/m/infer", JSON_BODY.encode(), {}),
            ("/v1/models/m:predict", json.dumps({"instances": X}).encode(), {}),
            (f"/{GRPC_SERVICE}/ModelInfer", call, {"content-type": "application/grpc"}),
        ]
        for path, body, headers in asked:
            client = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
            client.request("POST", path, body, headers | mirror())
            answer = client.getresponse()
            assert answer.status == 200
            answer.read()
            client.close()
        found = until_done(server, 3)
        assert (found["agreed"], found["differences"]) == (3, [])
        assert router.asked == [("/team/m/v2/models/m/infer", "r2", SECRET)] * 3
        assert router.feedback == [{"revision": "r2", "agrees": True}] * 3
        assert [(one.id, one.outputs, one.binary) for one in bodies] == [
            (name, [Wanted("y")], True) for name in ("r-7", "", "g-1")
        ]
        for one in bodies:
            assert np.array_equal(one.inputs[0].array, np.array(X, np.float32))
        assert own_answer(server) == own
        assert len(router.asked) == 3, "what the router did not mark is not copied"


def test_a_difference_is_told_to_the_router_and_kept_with_its_request(tmp_path: Path) -> None:
    with routing() as router, serving(tmp_path, router) as server:
        own = own_answer(server)
        router.answer = answering(*reversed(own))
        for headers in (mirror(output={"labels": True}), mirror(tolerance=10.0)):
            assert server.request("POST", "/v2/models/m/infer", JSON_BODY.encode(), headers)[0] == 200
        found = until_done(server, 2)
        assert router.feedback == [{"revision": "r2", "agrees": False}, {"revision": "r2", "agrees": True}]
        [difference] = found["differences"]
        del difference["at"]
        top, other = int(np.argmax(own)), int(np.argmax(own[::-1]))
        assert difference == {
            "id": "r-7",
            "model": "m",
            "revision": "r2",
            "difference": f"row 0 of output 'y' has class {other} on top, not {top} (1 of 1 rows)",
            "ours": [{"name": "y", "datatype": "FP32", "shape": [1, len(own)], "data": own}],
            "theirs": [{"name": "y", "datatype": "FP32", "shape": [1, len(own)], "data": own[::-1]}],
        }


@pytest.mark.parametrize(
    ("status", "counted", "feedback"),
    [(400, "disagreed", [False]), (500, "disagreed", [False]), (404, "lost", []), (503, "lost", [])],
)
def test_an_error_of_the_revision_is_a_difference_and_one_of_the_way_there_is_nothing(
    tmp_path: Path, status: int, counted: str, feedback: list[bool]
) -> None:
    with routing() as router:
        router.answer = lambda body, length: (status, b"no", {})
        found = compared(router, b"")
        assert {name: found[name] for name in ("agreed", "disagreed", "lost")} == {
            "agreed": 0,
            "disagreed": 0,
            "lost": 0,
            counted: 1,
        }
        assert [said["agrees"] for said in router.feedback] == feedback


def copy(said: bytes = b"", size: int = 100) -> Copy:
    y = Tensor("y", "FP32", np.array([[1.0, 2.0]], np.float32))
    said = said or mirror()[MIRROR_HEADER].encode()
    return Copy(said, "m", Request("r-7", [y._replace(name="x")]), Response("m", "1", "r-7", [y]), size)


def compared(router: Router, said: bytes) -> dict[str, Any]:
    one = Tap(router.told)
    one.offer(*copy(said))
    model_server.until(lambda: sum(one.document()[name] for name in ("agreed", "disagreed", "lost")) == 1, "it is done")
    return one.document()


@pytest.mark.parametrize(
    "said",
    [b"forged", base64.urlsafe_b64encode(b"[]"), mirror("r2\r\nhost: elsewhere")[MIRROR_HEADER].encode()],
)
def test_a_header_that_no_router_wrote_asks_nobody(said: bytes) -> None:
    with routing() as router:
        found = compared(router, said)
        assert (found["lost"], router.asked) == (1, [])
        assert found["lastLost"].startswith("ValueError: the header penstock-mirror is ")


def test_a_router_that_is_not_there_costs_copies_alone() -> None:
    with routing() as router:
        port = router.port
    assert compared(Router(port), b"")["lost"] == 1


def test_copies_that_a_dead_revision_does_not_take_are_dropped_beyond_a_number_and_beyond_bytes() -> None:
    gone = threading.Event()

    def hanging(body: bytes, length: int) -> tuple[int, bytes, dict[str, str]]:
        gone.wait(60)
        return 503, b"", {}

    with routing() as router:
        router.answer = hanging
        one = Tap(router.told)
        for _ in range(3):
            one.offer(*copy(size=tap.MOST_BYTES // 2))
        assert one.document()["dropped"] == 1
        for _ in range(tap.MOST_COPIES + 5):
            one.offer(*copy(size=0))
        assert one.document()["dropped"] >= 4
        assert one.document()["waiting"] <= tap.MOST_COPIES
        gone.set()


def test_a_server_that_was_told_of_no_router_shows_and_copies_nothing(tmp_path: Path) -> None:
    onnx_models.linear(tmp_path / "m.onnx")
    with model_server.running("serve", str(tmp_path / "m.onnx")) as server:
        assert server.request("POST", "/v2/models/m/infer", JSON_BODY.encode(), mirror())[0] == 200
        status, said = server.get(SHADOW_PATH)
        assert (status, json.loads(said)["error"]) == (
            501,
            "no requests are mirrored from here; a server that `penstock up` started does it",
        )
