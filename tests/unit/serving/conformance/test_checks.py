"""No check passes whatever a server does: one refuses everything, one agrees to everything."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc as grpcio
import numpy as np
import pytest

from serving.conformance import checks, command, report
from serving.conformance.checks import Finding, State
from serving.conformance.target import Place, Target, Unreachable
from serving.contract import GRPC_SERVICE, Exit
from serving.errors import InvalidInput
from serving.protocols import grpc

METADATA = {
    "name": "m",
    "versions": ["1"],
    "platform": "none",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "z", "datatype": "FP32", "shape": [-1, 2]},
    ],
}


class Deaf(BaseHTTPRequestHandler):
    """Describes its model, and fails at all else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_metadata = self.path == "/v2/models/m"
        self._answer(200 if is_metadata else 500, METADATA if is_metadata else {"oops": "/opt/server/lib/engine.so"})

    def do_POST(self) -> None:
        self.close_connection = True  # what was sent is not read
        self._answer(500, {"oops": "/opt/server/lib/engine.so"})

    def _answer(self, status: int, said: Any) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Yes(Deaf):
    """Agrees to everything, and has understood nothing."""

    def do_GET(self) -> None:
        self._answer(200, METADATA if self.path == "/v2/models/m" else {})

    def do_POST(self) -> None:
        self.close_connection = True
        outputs = [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0, np.random.default_rng().random()]}]
        self._answer(200, {"id": "", "outputs": outputs, "error": 7})


class Generic(grpcio.GenericRpcHandler):
    def __init__(self, agrees: bool) -> None:
        self._agrees = agrees

    def service(self, details: Any) -> Any:
        _, answer = grpc.METHODS.get(details.method.rpartition("/")[2], (None, None))

        def handle(request: bytes, context: grpcio.ServicerContext) -> bytes:
            if not self._agrees:
                context.abort(grpcio.StatusCode.INTERNAL, "no")
            return b"" if answer is None else answer().SerializeToString()

        def stream(requests: Iterator[bytes], context: grpcio.ServicerContext) -> Iterator[bytes]:
            for one in requests:
                yield handle(one, context)

        if details.method == f"/{GRPC_SERVICE}/ModelStreamInfer":
            return grpcio.stream_stream_rpc_method_handler(stream)
        return grpcio.unary_unary_rpc_method_handler(handle)


@contextlib.contextmanager
def running(handler: type[Deaf]) -> Iterator[Place]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        rpc = grpcio.server(futures.ThreadPoolExecutor(4), handlers=[Generic(handler is Yes)])
        port = rpc.add_insecure_port("127.0.0.1:0")
        rpc.start()
        yield Place(f"http://127.0.0.1:{http.server_port}/v2/models/m", f"127.0.0.1:{port}")
        rpc.stop(None).wait()
        http.shutdown()


@pytest.fixture(scope="module")
def found() -> dict[str, list[Finding]]:
    """What comes of each check, at both servers."""
    result: dict[str, list[Finding]] = {}
    for handler in (Deaf, Yes):
        with running(handler) as place, contextlib.closing(Target(place)) as target:
            for finding in checks.findings(target):
                result.setdefault(finding.check.name, []).append(finding)
    return result


@pytest.mark.parametrize("name", [one.name for one in checks.all_checks()])
def test_a_check_is_not_passed_by_every_server(found: dict[str, list[Finding]], name: str) -> None:
    # What is about the description of the model alone is passed by both, for they describe it.
    if name == "rest.model_metadata":
        assert [one.state for one in found[name]] == [State.YES, State.YES]
        return
    failed = [one for one in found[name] if one.state is State.NO]
    assert failed
    assert all(one.why for one in failed)


def test_a_server_that_lacks_what_is_needed_is_told_so_and_fails_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running(Deaf) as place:
        assert command.run(place, as_json=False) is Exit.FAILED
        shown = capsys.readouterr().out
        assert "Penstock cannot use it" in shown
        assert "which Penstock needs" in shown
        assert command.run(place, as_json=True) is Exit.FAILED
    said = json.loads(capsys.readouterr().out)
    assert said["usable"] is False
    assert said["servingRuntime"]["protocols"] == []
    assert {one["state"] for one in said["checks"]} == {"yes", "no"}


def test_a_description_without_a_platform_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(METADATA, "platform")
    with running(Deaf) as place, contextlib.closing(Target(place)) as target:
        (told,) = (one for one in checks.findings(target) if one.check.name == "rest.model_metadata")
    assert (told.state, told.why) == (State.NO, "its metadata has no platform")
    assert told in report.lacking([told])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:1/v2/models/m", "http://127.0.0.1:1/v2/models/m/infer"]
)
def test_a_url_that_names_no_model_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="expected http://HOST:PORT/v2/models/NAME"):
        Target(Place(url))


def test_who_does_not_answer_and_who_answers_something_else_are_told_apart() -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        Target(Place("http://127.0.0.1:1/v2/models/m"))
    with running(Deaf) as place, pytest.raises(Unreachable, match=r"nobody speaks gRPC at 127\.0\.0\.1:1;"):
        Target(dataclasses.replace(place, grpc="127.0.0.1:1", timeout_s=0.5))
    with running(Deaf) as place, pytest.raises(Unreachable, match="answered 500 and no metadata of a model"):
        Target(Place(f"{place.url}-other"))


def test_inputs_come_from_a_file_where_one_is_given(tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, x=np.array([[1, 2], [3, 4]], np.float64))
    with running(Deaf) as place:
        with contextlib.closing(Target(Place(place.url, inputs=file))) as target:
            (tensor,) = target.sample(rows=3)
        assert tensor.array.dtype == np.float32
        assert {tuple(row) for row in tensor.array.tolist()} <= {(1, 2), (3, 4)}
        np.savez(file, other=np.zeros(1))
        with pytest.raises(InvalidInput, match=r"expected an \.npz with an array for each of x"):
            Target(Place(place.url, inputs=file))
