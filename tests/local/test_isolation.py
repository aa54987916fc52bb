"""What an engine in a process of its own may do to the server: nothing. Every fault happens beside a model that answers
throughout, and the model it happens to answers again afterwards.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from serving.contract import Exit
from tests.rig import model_server, onnx_models
from tests.rig.model_server import ModelServer, until

FOREVER_N = 1_000_000


class Neighbour:
    """Asks the model that has no trouble, one request after the other, until told to stop; each answer is checked."""

    def __init__(self, server: ModelServer) -> None:
        self.answers = 0
        self.wrong: list[str] = []
        self._port = server.http_port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_answers(self) -> None:
        """Until it was answered well again."""
        seen = self.answers - len(self.wrong)
        until(lambda: self.answers - len(self.wrong) > seen + 20, "the model answered")

    def wait_for_more(self) -> None:
        seen = self.answers
        until(lambda: self.answers > seen + 100 or bool(self.wrong), "the other model went on answering")

    def _ask(self) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as client:
            while not self._stop.is_set():
                value = float(self.answers % 1000)
                inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, value]}]
                client.request("POST", "/v2/models/good/infer", json.dumps({"inputs": inputs}))
                answer = client.getresponse()
                text = answer.read().decode()
                expected = [value * weight for weight in onnx_models.WEIGHTS[3].tolist()]
                if answer.status != 200 or json.loads(text)["outputs"][0]["data"] != pytest.approx(expected):
                    self.wrong.append(text)
                self.answers += 1


@contextlib.contextmanager
def beside_another(tmp_path: Path, make: Callable[[Path], Path], limits: dict[str, str]) -> Iterator[ModelServer]:
    """A server with the model ``bad`` in a process of its own, and ``good``; the latter must have given no error."""
    onnx_models.linear(tmp_path / "good" / "model.onnx")
    make(tmp_path / "bad" / "model.onnx")
    (tmp_path / "bad" / "penstock.json").write_text(json.dumps({"isolation": "process", "limits": limits}))
    with model_server.running("serve", str(tmp_path)) as server, Neighbour(server) as neighbour:
        neighbour.wait_for_more()
        yield server
        neighbour.wait_for_more()
    assert neighbour.wrong == []


def ask(server: ModelServer, name: str, datatype: str, value: int | bool) -> tuple[int, str]:
    shape = [] if datatype == "BOOL" else [1]
    inputs = [{"name": name, "datatype": datatype, "shape": shape, "data": [value]}]
    status, text = server.request("POST", "/v2/models/bad/infer", json.dumps({"inputs": inputs}).encode())
    return status, json.loads(text).get("error", text)


def engine_process(server: ModelServer) -> psutil.Process:
    (found,) = psutil.Process(server.process.pid).children()
    return found


def server_has_another(server: ModelServer, than: psutil.Process) -> bool:
    found = psutil.Process(server.process.pid).children()
    return bool(found) and found != [than] and is_ready(server, "good")


def is_ready(server: ModelServer, model: str = "bad") -> bool:
    return server.get(f"/v2/models/{model}/ready")[0] == 200


def test_an_inference_without_end_is_stopped_and_its_process_goes_on(tmp_path: Path) -> None:
    def make(path: Path) -> Path:
        return onnx_models.endless(path, always=False)

    with beside_another(tmp_path, make, {"timeout": "1s"}) as server:
        before = engine_process(server)
        status, error = ask(server, "go", "BOOL", True)
        assert (status, error) == (
            504,
            "model 'bad' did not answer within the time limit of the request (at most 1 s, limits.timeout)",
        )
        assert ask(server, "go", "BOOL", False)[0] == 200
        assert engine_process(server) == before


def test_an_inference_that_cannot_be_stopped_costs_its_process_which_is_replaced(tmp_path: Path) -> None:
    with beside_another(tmp_path, onnx_models.deaf, {"timeout": "1s"}) as server:
        before = engine_process(server)
        status, _ = ask(server, "n", "INT64", FOREVER_N)
        assert status == 504
        until(lambda: not before.is_running(), "the process was killed")
        until(lambda: is_ready(server) and ask(server, "n", "INT64", 5)[0] == 200, "the model answered again")
        assert engine_process(server) != before


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_ends_while_it_computes_fails_that_request_only(tmp_path: Path, number: signal.Signals) -> None:
    with beside_another(tmp_path, onnx_models.deaf, {"timeout": "60s"}) as server:
        before = engine_process(server)
        answers: list[tuple[int, str]] = []
        asking = threading.Thread(target=lambda: answers.append(ask(server, "n", "INT64", FOREVER_N)))
        asking.start()
        busy = before.cpu_times().user + 0.2
        until(lambda: before.cpu_times().user > busy, "the engine computed")
        before.send_signal(number)
        asking.join()
        hint = ", by the kernel if memory ran out" if number is signal.SIGKILL else ""
        said = f"the model's process was killed by signal {number.value} ({number.name}{hint}); send the request again"
        assert answers == [(503, said)]
        until(lambda: is_ready(server) and ask(server, "n", "INT64", 5)[0] == 200, "the model answered again")


def test_an_inference_that_needs_more_memory_than_it_may_have_fails_and_its_process_goes_on(tmp_path: Path) -> None:
    with beside_another(tmp_path, onnx_models.bomb, {"memory": "1Gi"}) as server:
        before = engine_process(server)
        status, error = ask(server, "n", "INT64", 3_000_000_000)
        assert status == 500
        assert "Failed to allocate memory for requested buffer of size 12000000000" in error
        assert ask(server, "n", "INT64", 1000)[0] == 200
        assert engine_process(server) == before
        assert Path(f"/proc/{before.pid}/oom_score_adj").read_text() == "1000\n"


def test_an_engine_that_is_killed_again_and_again_under_load_gives_no_wrong_answer(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "good.onnx")
    with model_server.running("serve", str(path), "--settings", '{"isolation": "process"}') as server:
        clients = [Neighbour(server) for _ in range(3)]
        with contextlib.ExitStack() as asking:
            for client in clients:
                asking.enter_context(client)
            for _ in range(5):
                engine = engine_process(server)
                clients[0].wait_for_answers()
                engine.kill()
                until(lambda gone=engine: server_has_another(server, gone), "it was replaced")  # type: ignore[misc]
                clients[0].wait_for_answers()
        errors = [text for client in clients for text in client.wrong]
        assert [text for text in errors if "send the request again" not in text and "not ready" not in text] == []


def test_a_model_whose_process_ends_again_and_again_is_not_ready_and_says_why(tmp_path: Path) -> None:
    with beside_another(tmp_path, onnx_models.deaf, {}) as server:

        def kill_what_there_is() -> bool:
            for process in psutil.Process(server.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return "ended 3 times in a row without an answer" in server.get("/v2/models/bad/ready")[1]

        until(kill_what_there_is, "the model's state said that its process ends again and again")
        status, _ = server.get("/v2/models/bad/ready")
        assert status == 503
        until(lambda: is_ready(server) and ask(server, "n", "INT64", 5)[0] == 200, "the model answered again")


def test_a_server_whose_only_engine_is_stuck_ends_so_that_it_is_replaced(tmp_path: Path) -> None:
    path = onnx_models.deaf(tmp_path / "bad.onnx")
    said = tmp_path / "last-words"
    settings = '{"limits": {"timeout": "500ms"}}'
    env = {"PENSTOCK_TERMINATION_LOG": str(said)}
    with model_server.running("serve", str(path), "--settings", settings, env=env) as server:
        assert ask(server, "n", "INT64", FOREVER_N)[0] == 504
        until(lambda: not is_ready(server), "the model was not ready")
        assert server.get("/v2/health/live")[0] == 200

        assert server.process.wait(60) == Exit.HUNG
        assert said.read_text() == (
            "nothing has been answered for 10 s and this process cannot mend it: "
            "model 'bad' version '1': its engine was told to stop and does not"
        )


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_engine_outlives_its_server(tmp_path: Path, end: signal.Signals) -> None:
    path = onnx_models.deaf(tmp_path / "bad.onnx")
    with model_server.running("serve", str(path), "--settings", '{"isolation": "process"}') as server:
        engine = engine_process(server)

        def computes() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):  # the server ends before it answers
                ask(server, "n", "INT64", FOREVER_N)

        asking = threading.Thread(target=computes)
        if end is signal.SIGKILL:
            asking.start()
            busy = engine.cpu_times().user + 0.2
            until(lambda: engine.cpu_times().user > busy, "the engine computed")
        server.process.send_signal(end)
        server.process.wait(60)
        until(lambda: not engine.is_running(), "the engine's process ended")
        if end is signal.SIGKILL:
            asking.join()
