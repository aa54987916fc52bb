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

from serving.contract import AGREED_PATH, DISAGREED_PATH, GRPC_SERVICE, MIRROR_HEADER, SHADOW_PATH, Env
from serving.protocols import grpc, v2
from serving.requests import Request, Response, Wanted
from serving.tap import tap
from serving.tap.tap import Tap
from serving.tensors import Tensor
from tests.rig import model_server, onnx_models
from tests.rig.model_server import ModelServer

Answer = Callable[[bytes, int], tuple[int, bytes, dict[str, str]]]
TOKEN = "team:m:b/r2|m-r2-a/team:m:b|1795457158|81F6"
X = [[1.0, 2.0, 3.0, 4.0]]
JSON_BODY = json.dumps({"id": "r-7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": X}]})


@dataclasses.dataclass
class Router:
    """Answers copies as ``answer`` does and keeps what came of them."""

    port: int = 0
    answer: Answer = lambda body, length: (503, b"nobody", {})
    feedback: list[bool] = dataclasses.field(default_factory=list)
    """Whether they agree."""
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Path and token of each copy."""

    def mirror(self, what: dict[str, Any] | None = None, **compare: object) -> dict[str, str]:
        """The header that has a copy sent here."""
        said = json.dumps((what or {"revision": "r2"}) | {"compare": compare}).encode()
        return {MIRROR_HEADER: f"127.0.0.1:{self.port}|{base64.urlsafe_b64encode(said).decode()}|{TOKEN}"}


@contextlib.contextmanager
def routing() -> Iterator[Router]:
    router = Router()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, answer = 204, b""
            headers: dict[str, str] = {}
            if self.path in (AGREED_PATH, DISAGREED_PATH):
                assert (self.headers[MIRROR_HEADER], body) == (TOKEN, b"")
                router.feedback.append(self.path == AGREED_PATH)
            else:
                router.asked.append((self.path, self.headers[MIRROR_HEADER]))
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


@contextlib.contextmanager
def serving(folder: Path, scale: float = 2.0) -> Iterator[ModelServer]:
    """``m``: x FP32 [-1, 4] times ``scale``."""
    onnx_models.linear(folder / "m.onnx", scale)
    with model_server.running("serve", str(folder / "m.onnx"), env={**os.environ, Env.ROUTED: "1"}) as server:
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
    with routing() as router, serving(tmp_path) as server:
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
            client.request("POST", path, body, headers | router.mirror())
            answer = client.getresponse()
            assert answer.status == 200
            answer.read()
            client.close()
        found = until_done(server, 3)
        assert (found["agreed"], found["differences"]) == (3, [])
        assert router.asked == [("/v2/models/m/infer", TOKEN)] * 3
        assert router.feedback == [True] * 3
        assert [(one.id, one.outputs, one.binary) for one in bodies] == [
            (name, [Wanted("y")], True) for name in ("r-7", "", "g-1")
        ]
        for one in bodies:
            assert np.array_equal(one.inputs[0].array, np.array(X, np.float32))
        assert own_answer(server) == own
        assert len(router.asked) == 3, "what the router did not mark is not copied"


def test_a_difference_is_told_to_the_router_and_kept_with_its_request(tmp_path: Path) -> None:
    with routing() as router, serving(tmp_path) as server:
        own = own_answer(server)
        router.answer = answering(*reversed(own))
        for headers in (router.mirror(output={"labels": True}), router.mirror(tolerance=10.0)):
            assert server.request("POST", "/v2/models/m/infer", JSON_BODY.encode(), headers)[0] == 200
        found = until_done(server, 2)
        assert sorted(router.feedback) == [False, True]
        [difference] = found["differences"]
        del difference["at"]
        top, other = int(np.argmax(own)), int(np.argmax(own[::-1]))
        assert difference == {
            "id": "r-7",
            "model": "m",
            "revision": "r2",
            "shadow": "",
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
        found = compared(router)
        assert {name: found[name] for name in ("agreed", "disagreed", "lost")} == {
            "agreed": 0,
            "disagreed": 0,
            "lost": 0,
            counted: 1,
        }
        assert router.feedback == feedback


def offer(one: Tap, header: dict[str, str], size: int = 100) -> None:
    y = Tensor("y", "FP32", np.array([[1.0, 2.0]], np.float32))
    request, answer = Request("r-7", [y._replace(name="x")]), Response("m", "1", "r-7", [y])
    one.offer(header[MIRROR_HEADER].encode("latin-1"), "m", request, answer, size)


def done(one: Tap) -> int:
    found = one.document()
    return sum(found[name] for name in ("agreed", "disagreed", "lost"))


def compared(router: Router, header: dict[str, str] | None = None) -> dict[str, Any]:
    one = Tap()
    offer(one, header or router.mirror())
    model_server.until(lambda: done(one) == 1, "it is done")
    return one.document()


def what(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("forged", "the header penstock-mirror is b'forged', which no router says"),
        ("127.0.0.1:{port}|W10=|t", "ValueError: the header penstock-mirror says b'W10=', which no router does"),
        ("127.0.0.1:{port}|%|t", "ValueError: the header penstock-mirror says b'%', which no router does"),
        (f"localhost:{{port}}|{what({'revision': 'r2', 'compare': {}})}|t", "copies cannot be sent to 'localhost:"),
        (f"169.254.169.254:80|{what({'revision': 'r2', 'compare': {}})}|t", "copies cannot be sent to '169.254."),
        (f"127.0.0.1|{what({'revision': 'r2', 'compare': {}})}|t", "copies cannot be sent to '127.0.0.1'"),
    ],
)
def test_a_header_that_no_router_wrote_asks_nobody(said: str, why: str) -> None:
    with routing() as router:
        found = compared(router, {MIRROR_HEADER: said.format(port=router.port)})
        assert (found["lost"], router.asked) == (1, [])
        assert why in found["lastLost"]


def test_a_router_that_is_not_there_costs_copies_alone() -> None:
    with routing() as router:
        port = router.port
    assert compared(Router(port))["lost"] == 1


def test_a_copy_for_another_model_asks_for_that_model() -> None:
    with routing() as router:
        router.answer = answering(1.0, 3.0)
        found = compared(router, router.mirror({"model": "next"}, tolerance=0.01))
        assert router.asked == [("/v2/models/next/infer", TOKEN)]
        [difference] = found["differences"]
        assert (difference["revision"], difference["shadow"], difference["id"]) == ("", "next", "r-7")


def test_copies_that_a_dead_revision_does_not_take_are_dropped_beyond_a_number_and_beyond_bytes_and_cost_no_other(
    tmp_path: Path,
) -> None:
    gone = threading.Event()

    def hanging(body: bytes, length: int) -> tuple[int, bytes, dict[str, str]]:
        gone.wait(60)
        return 503, b"", {}

    with routing() as router, routing() as other:
        router.answer, other.answer = hanging, answering(1.0, 2.0)
        one = Tap()
        for _ in range(3):
            offer(one, router.mirror(), tap.MOST_BYTES // 4)
        assert one.document()["dropped"] == 1
        for _ in range(tap.MOST_COPIES + 5):
            offer(one, router.mirror(), 0)
        assert one.document()["dropped"] >= 4
        assert one.document()["waiting"] <= tap.MOST_COPIES
        offer(one, other.mirror({"model": "next"}), tap.MOST_BYTES // 8)
        model_server.until(lambda: one.document()["agreed"] == 1, "the copy for the other is compared")
        for number in range(tap.MOST_LINES + 1):
            offer(one, other.mirror({"model": f"m-{number}"}), 0)
        assert one.document()["dropped"] >= 6, "there are no more lines than that"
        gone.set()


def test_a_server_that_is_not_behind_a_router_shows_and_copies_nothing(tmp_path: Path) -> None:
    onnx_models.linear(tmp_path / "m.onnx")
    with routing() as router, model_server.running("serve", str(tmp_path / "m.onnx")) as server:
        assert server.request("POST", "/v2/models/m/infer", JSON_BODY.encode(), router.mirror())[0] == 200
        status, said = server.get(SHADOW_PATH)
        assert (status, json.loads(said)["error"]) == (
            501,
            "no requests are mirrored from here; a server behind Penstock's router does it",
        )
        assert router.asked == []
