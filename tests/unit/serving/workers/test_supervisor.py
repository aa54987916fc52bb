"""Several processes behind the same ports: real servers, whose workers are killed."""

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
from pathlib import Path

import orjson
import psutil
import pytest

from serving.contract import REQUESTS_PATH, Env, Exit
from tests.rig import onnx_models
from tests.rig.model_server import DEADLINE_S, ModelServer, running, start, until

REQUEST = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 1]}]})
SUCCESSES = re.compile(r'^nv_inference_request_success\{model="digits",version="1"\} (\d+)$', re.MULTILINE)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "digits.onnx")


def workers(server: ModelServer) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def infer(server: ModelServer) -> int:
    """On a connection of its own, which the kernel gives to one worker or another."""
    return server.request("POST", "/v2/models/digits/infer", REQUEST)[0]


def counted(server: ModelServer) -> int:
    found = SUCCESSES.search(server.get("/metrics")[1])
    assert found is not None
    return int(found.group(1))


def replaced(server: ModelServer, count: int, but: psutil.Process) -> None:
    """Waits until so many workers live again and have said so."""
    until(
        lambda: len(workers(server)) == count and but.pid not in {worker.pid for worker in workers(server)},
        "a worker takes the place of the one that died",
    )


def test_workers_share_the_ports_and_whichever_is_asked_counts_what_all_have_done(model: Path) -> None:
    with running("serve", str(model), "--workers", "3") as server:
        assert len(workers(server)) == 3

        for done in range(1, 31):
            assert infer(server) == 200
            assert counted(server) == done
            (statistics,) = json.loads(server.get("/v2/models/digits/stats")[1])["model_stats"]
            assert statistics["inference_stats"]["success"]["count"] == done

        assert server.stop() == Exit.OK


def test_the_page_of_requests_says_whose_it_is(model: Path) -> None:
    with running("serve", str(model), "--workers", "2") as server:
        whose = [json.loads(server.get(REQUESTS_PATH)[1])["worker"] for _ in range(5)]
        assert [one for one in whose if one not in ({"number": 0, "of": 2}, {"number": 1, "of": 2})] == []

        _, page = server.request("GET", REQUESTS_PATH, headers={"accept": "text/html"})
        assert re.search("<p>Worker [01] of 2 alone, counted from 0; each shows its own.</p>", page)


def test_the_ports_belong_to_one_server_whose_workers_share_them(model: Path) -> None:
    with running("serve", str(model), "--workers", "2") as server:
        for port in ("http", "grpc"):
            taken = start("serve", str(model), "--workers", "2", f"--{port}-port", str(getattr(server, f"{port}_port")))
            _, errors = taken.communicate(timeout=DEADLINE_S)
            assert (taken.returncode, "is in use by another process" in errors) == (Exit.PORT_IN_USE, True)


def test_a_worker_that_is_killed_is_replaced_and_what_it_counted_stays_counted(model: Path) -> None:
    with running("serve", str(model), "--workers", "2") as server:
        for _ in range(20):
            assert infer(server) == 200
        before = counted(server)
        for _ in range(3):
            victim = workers(server)[0]
            victim.kill()
            replaced(server, 2, victim)
            assert counted(server) == before
        assert infer(server) == 200
        assert counted(server) == before + 1


def test_connections_that_wait_for_a_worker_when_it_dies_are_answered_by_others(model: Path) -> None:
    with running("serve", str(model), "--workers", "2") as server:
        victim = workers(server)[0]
        victim.suspend()
        with concurrent.futures.ThreadPoolExecutor(24) as clients:
            asked = [clients.submit(infer, server) for _ in range(24)]
            until(lambda: sum(answer.done() for answer in asked) > 0, "the other worker answers")
            assert not all(answer.done() for answer in asked)

            victim.kill()

            assert [answer.result(DEADLINE_S) for answer in asked] == [200] * 24


def test_a_worker_that_is_told_to_end_answers_what_it_has_and_is_replaced(model: Path) -> None:
    with running("serve", str(model), "--workers", "2") as server:
        victim = workers(server)[0]
        victim.terminate()
        replaced(server, 2, victim)

        assert [infer(server) for _ in range(20)] == [200] * 20


def test_loads_and_unloads_reach_every_worker_and_the_ones_that_come_later(tmp_path: Path) -> None:
    for name in ("digits", "other"):
        onnx_models.linear(tmp_path / name / "model.onnx")
    with running("serve", str(tmp_path), "--workers", "3") as server:

        def statuses() -> set[int]:
            return {server.get("/v2/models/digits/ready")[0] for _ in range(20)}

        assert server.request("POST", "/v2/repository/models/digits/unload")[0] == 200
        assert statuses() == {503}

        victim = workers(server)[0]
        victim.kill()
        replaced(server, 3, victim)
        assert statuses() == {503}

        assert server.request("POST", "/v2/repository/models/digits/load")[0] == 200
        assert statuses() == {200}


def test_a_model_that_is_refused_is_refused_by_one_worker_and_goes_on_serving_on_all(model: Path) -> None:
    with running("serve", str(model), "--workers", "3") as server:
        model.write_bytes(b"no model")

        status, text = server.request("POST", "/v2/repository/models/digits/load")

        assert (status, "is no whole ONNX model" in text) == (400, True)
        assert [infer(server) for _ in range(10)] == [200] * 10


def test_models_that_are_refused_end_all_workers_with_one_reason(tmp_path: Path) -> None:
    empty = tmp_path / "digits.onnx"
    empty.touch()
    process = start("serve", str(empty), "--workers", "3", env={Env.TERMINATION_LOG: str(tmp_path / "log")})

    out, errors = process.communicate(timeout=DEADLINE_S)

    reason = f"{empty} is empty; fetch or export the model again"
    assert (process.returncode, out, errors.count(f"error: {reason}")) == (Exit.REFUSED, "", 1)
    assert (tmp_path / "log").read_text() == reason


def test_workers_end_with_their_supervisor(model: Path) -> None:
    with running("serve", str(model), "--workers", "2") as server:
        of_it = workers(server)
        server.process.kill()

        assert psutil.wait_procs(of_it, DEADLINE_S)[1] == []
        with socket.socket() as again:
            again.bind(("127.0.0.1", server.http_port))


def test_a_request_in_work_is_answered_when_all_workers_are_told_to_end(model: Path) -> None:
    with running("serve", str(model), "--workers", "2", "--settle-s", "0.2") as server:
        client = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=DEADLINE_S)
        client.request("POST", "/v2/models/digits/infer", REQUEST)
        assert client.getresponse().read()
        os.kill(server.process.pid, signal.SIGTERM)
        until(lambda: b"false" in _ready(client), "the server is not ready any more")
        assert server.process.wait(DEADLINE_S) == Exit.OK


def _ready(client: http.client.HTTPConnection) -> bytes:
    client.request("GET", "/v2/health/ready")
    return client.getresponse().read()


def test_each_worker_may_have_cpus_of_its_own(model: Path) -> None:
    with running("serve", str(model), "--workers", "2", "--pin") as server:
        assert infer(server) == 200
        allowed = os.sched_getaffinity(0)
        own = [os.sched_getaffinity(worker.pid) for worker in workers(server)]
        assert set.union(*own) <= allowed
        assert len(allowed) == 1 or not own[0] & own[1]
