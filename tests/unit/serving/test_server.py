"""Whole processes: how they begin, what they survive, and how they end."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.contract import Env, Exit
from serving.protocols import grpc
from tests.rig import onnx_models
from tests.rig.model_server import DEADLINE_S, ROOT, ModelServer, running, start, until

UNKNOWN = "Request for unknown model: 'q' is not served here; GET /v2/models lists what is served: digits"

REQUEST = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 1]}]})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "digits.onnx")


def last_words(*arguments: str, log: Path) -> tuple[int, str, str]:
    """Exit code, standard error and termination log of a process that ends by itself."""
    process = start(*arguments, env={Env.TERMINATION_LOG: str(log)})
    _, errors = process.communicate(timeout=DEADLINE_S)
    return process.returncode, errors, log.read_text()


def test_a_server_says_where_it_listens_serves_and_ends_well(model: Path) -> None:
    with running("serve", str(model)) as server:
        status, body = server.request("POST", "/v2/models/digits/infer", REQUEST)
        assert (status, json.loads(body)["outputs"][0]["datatype"]) == (200, "FP32")

        assert server.stop() == Exit.OK


def test_a_server_of_nothing_but_inference_and_what_describes_it_never_imports_fastapi(model: Path) -> None:
    described = [f"/v2/models/digits{version}{what}" for version in ("", "/versions/1") for what in ("", "/config")]
    counted = ["/v2/models/stats", "/v2/models/digits/stats", "/v2/models/digits/versions/1/stats"]
    with running("serve", str(model)) as server:
        server.request("POST", "/v2/models/digits/infer", REQUEST)
        for path in ("/metrics", "/v2", "/v2/models", *described, *counted):
            assert server.get(path)[0] == 200, path
        maps = Path(f"/proc/{server.process.pid}/maps")
        assert "pydantic_core" not in maps.read_text()

        assert json.loads(server.get("/v1/models")[1]) == {"models": ["digits"]}
        assert "pydantic_core" in maps.read_text()


def test_an_artifact_that_is_refused_ends_the_process_with_its_reason_as_last_words(tmp_path: Path) -> None:
    empty = tmp_path / "digits.onnx"
    empty.touch()
    reason = f"{empty} is empty; fetch or export the model again"

    code, errors, words = last_words("serve", str(empty), log=tmp_path / "log")

    assert (code, errors.splitlines()[-1], words) == (Exit.REFUSED, f"error: {reason}", reason)


def test_an_endless_model_is_refused_and_never_ready(tmp_path: Path) -> None:
    endless = onnx_models.endless(tmp_path / "endless.onnx")

    code, _, words = last_words(
        "serve", str(endless), "--settings", '{"limits": {"timeout": "0.5s"}}', log=tmp_path / "log"
    )

    assert (code, words) == (
        Exit.REFUSED,
        f"{endless} did not end its trial inference within 0.5 s; check the model for an endless loop, "
        "or raise limits.timeout",
    )


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_port_in_use_ends_the_process_with_its_number(model: Path, tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, words = last_words("serve", str(model), f"--{kind}-port", str(port), log=tmp_path / "log")

    assert code == Exit.PORT_IN_USE
    assert words == (
        f"{'HTTP' if kind == 'http' else 'gRPC'} port {port} on 127.0.0.1 is in use by another process; "
        f"stop that process or choose another port with --{kind}-port"
    )


def test_an_inference_without_end_is_stopped_at_its_limit_and_others_are_served_meanwhile(
    model: Path, tmp_path: Path
) -> None:
    endless = onnx_models.endless(tmp_path / "endless.onnx", always=False)
    body = orjson.dumps({"inputs": [{"name": "go", "datatype": "BOOL", "shape": [], "data": [True]}]})
    found: list[tuple[int, str]] = []
    with running("serve", str(model), str(endless), "--settings", '{"limits": {"timeout": "3s"}}') as server:
        asking = threading.Thread(target=lambda: found.append(server.request("POST", "/v2/models/endless/infer", body)))
        asking.start()
        until(lambda: 'pending_request_count{model="endless",version="1"} 1' in server.get("/metrics")[1], "it runs")
        assert server.request("POST", "/v2/models/digits/infer", REQUEST)[0] == 200
        asking.join(DEADLINE_S)

    message = "model 'endless' did not answer within the time limit of the request (at most 3 s, limits.timeout)"
    assert found == [(504, json.dumps({"error": message}, separators=(",", ":")))]


def test_a_server_told_to_end_under_load_loses_no_request(model: Path) -> None:
    """Eight clients on kept connections; each goes on until it is told that its connection closes."""
    results: list[int] = []

    def client(server: ModelServer) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=DEADLINE_S)) as to:
            while True:
                to.request("POST", "/v2/models/digits/infer", REQUEST)
                answer = to.getresponse()
                answer.read()
                results.append(answer.status)
                if answer.getheader("connection") == "close":
                    return

    with running("serve", str(model), "--settle-s", "0.5") as server:
        clients = [threading.Thread(target=client, args=(server,)) for _ in range(8)]
        for thread in clients:
            thread.start()
        until(lambda: len(results) > 500, "the load is on")
        server.process.send_signal(signal.SIGTERM)
        for thread in clients:
            thread.join(DEADLINE_S)

        assert server.process.wait(DEADLINE_S) == Exit.OK
    assert set(results) == {200}


def test_a_model_reloaded_under_load_loses_no_request_and_a_bad_one_changes_nothing(model: Path) -> None:
    results: list[tuple[int, float]] = []
    end = threading.Event()

    def client(server: ModelServer) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=DEADLINE_S)) as to:
            while not end.is_set():
                to.request("POST", "/v2/models/digits/infer", REQUEST)
                answer = to.getresponse()
                body = json.loads(answer.read())
                results.append((answer.status, round(body["outputs"][0]["data"][0], 3)))

    with running("serve", str(model)) as server:
        clients = [threading.Thread(target=client, args=(server,)) for _ in range(4)]
        for thread in clients:
            thread.start()
        for scale in (2.0, 3.0):
            onnx_models.linear(model, scale)
            assert server.request("POST", "/v2/repository/models/digits/load") == (200, "{}")
            until(lambda scale=scale: results[-1] == (200, round(0.9 * scale, 3)), "the new one answers")  # type: ignore[misc]
        model.write_bytes(model.read_bytes()[:50])
        assert server.request("POST", "/v2/repository/models/digits/load")[0] == 400
        seen = len(results)
        until(lambda: len(results) > seen + 100, "it goes on")
        end.set()
        for thread in clients:
            thread.join(DEADLINE_S)

    assert set(results) == {(200, 0.9), (200, 1.8), (200, 2.7)}
    assert results[-1] == (200, 2.7)


@pytest.mark.parametrize("cpu_s", [0.0, 0.05, 0.1, 0.15, 0.2])
def test_a_server_told_to_end_at_any_moment_of_loading_does_not_wait_for_the_model(
    tmp_path: Path, cpu_s: float
) -> None:
    process = start("serve", str(onnx_models.endless(tmp_path / "endless.onnx")))
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        port = re.search(r"took ports ([0-9]+), [0-9]+; loading$", said)
        assert port, said
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(port[1]))):
            pass
        spent = psutil.Process(process.pid).cpu_times
        begun = sum(spent()[:2])
        until(lambda: sum(spent()[:2]) >= begun + cpu_s, f"it spends {cpu_s} s on loading")
        process.terminate()
        assert process.wait(DEADLINE_S) == Exit.OK
    finally:
        process.kill()
        process.communicate()


def test_while_it_settles_a_server_is_not_ready_but_accepts_and_answers(model: Path) -> None:
    with running("serve", str(model), "--settle-s", "20") as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.get("/v2/health/ready")[0] == 503, "it is not ready")

        assert server.get("/v2/health/live")[0] == 200
        assert server.request("POST", "/v2/models/digits/infer", REQUEST)[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE_S) == 128 + signal.SIGTERM


def call(server: ModelServer, message: Any) -> tuple[str | None, str | None]:
    """Status and sentence of an inference that is refused over gRPC as it comes from the router."""
    payload = message.SerializeToString()
    body = b"\0" + len(payload).to_bytes(4, "big") + payload
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=DEADLINE_S)) as to:
        to.request("POST", "/inference.GRPCInferenceService/ModelInfer", body, {"content-type": "application/grpc"})
        answer = to.getresponse()
        return answer.getheader("grpc-status"), answer.getheader("grpc-message")


def test_a_catalog_answers_for_models_that_have_no_server(tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    listed = [{"name": "digits", "version": "1", "state": "UNAVAILABLE", "reason": "its first replica starts"}]
    index.write_text(json.dumps(listed))
    with running("catalog", "--index", str(index)) as server:
        asked = {
            path: server.request("POST", path, REQUEST)
            for path in ("/v2/models/digits/infer", "/v2/models/q/infer", "/v2/repository/index")
        } | {path: server.get(path) for path in ("/v2/models/stats", "/debug/requests")}

        assert {path: (status, json.loads(body)) for path, (status, body) in asked.items()} == {
            "/v2/models/digits/infer": (503, {"error": "model 'digits' is not ready: its first replica starts"}),
            "/v2/models/q/infer": (
                404,
                {"error": UNKNOWN},
            ),
            "/v2/repository/index": (200, listed),
            "/v2/models/stats": (
                501,
                {
                    "error": "each model's own server counts for itself; ask for one at "
                    "/v2/models/NAME/stats (/v2/models lists them)"
                },
            ),
            "/debug/requests": (
                501,
                {
                    "error": "no model is computed here, so there are no requests to show; ask a "
                    "model's own server for /debug/requests, at its own port"
                },
            ),
        }
        assert call(server, grpc.InferRequest(model_name="digits")) == (
            "14",
            "model 'digits' is not ready: its first replica starts",
        )
        assert call(server, grpc.InferRequest(model_name="q")) == (
            "5",
            UNKNOWN,
        )
        fresh = tmp_path / "fresh"
        fresh.write_text("[]")
        fresh.rename(index)
        until(lambda: json.loads(server.get("/v2/models")[1]) == {"models": []}, "it was read again")


def test_a_fetch_says_what_it_fetched_and_what_it_could_not(model: Path, tmp_path: Path) -> None:
    log, store = tmp_path / "log", tmp_path / "store"
    code, _, words = last_words("fetch", "--uri", str(model), "--store", str(store), log=log)
    (folder,) = store.iterdir()
    assert (code, json.loads(words)) == (
        Exit.OK,
        {
            "digest": folder.name.replace("-", ":"),
            "path": str(folder),
            "bytes": model.stat().st_size,
            "files": 1,
        },
    )

    code, errors, words = last_words("fetch", "--uri", f"{model}.gone", "--store", str(store), log=log)
    sentence = f"{model}.gone does not exist; check the URI"
    assert (code, errors, words) == (Exit.REFUSED, f"error: {sentence}\n", sentence)


def test_help_costs_no_engine() -> None:
    code = (
        "import sys; from serving import cli; cli.main(['serve', '--help'])\n"
        "print(sorted({'numpy', 'uvicorn', 'grpc'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert found.stdout.splitlines()[-1] == "[]"


def test_a_server_answers_before_it_has_imported_what_only_other_calls_need(model: Path) -> None:
    unneeded = {
        *("fastapi", "pydantic", "opentelemetry", "serving.http.management", "serving.engines.process"),
        *("serving.workers.supervisor", "serving.telemetry.page", "html"),
        *("importlib.metadata", "numpy.random", "numpy.typing"),
    }
    code = f"import sys; from serving import cli; cli.main(sys.argv[1:]); print(sorted({unneeded} & set(sys.modules)))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(model), "--http-port", "0", "--grpc-port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        server = ModelServer(process, json.loads(process.stdout.readline())["http_port"], None)
        status, _ = server.request("POST", "/v2/models/digits/infer", REQUEST)
        assert (status, server.stop(), process.stdout.read()) == (200, 0, "[]\n")
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def test_a_server_starts_no_threads_for_linear_algebra(model: Path) -> None:
    cpus = len(os.sched_getaffinity(0))

    with running("serve", str(model)) as server, running("serve", str(model), env={"OPENBLAS_NUM_THREADS": "2"}) as two:
        processes = [psutil.Process(one.process.pid) for one in (server, two)]
        until(
            lambda: processes[1].num_threads() - processes[0].num_threads() == min(cpus, 2) - 1,
            "it has one thread less than a server that was told to start one",
        )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> object:
    with running("serve", str(onnx_models.linear(tmp_path_factory.mktemp("m") / "digits.onnx"))) as server:
        yield server


PATHS = ["/v2/models/digits/infer", "/v1/models/digits:predict", "/inference.GRPCInferenceService/ModelInfer"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    body=st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda data: b"\0" + len(data).to_bytes(4, "big") + data),
        st.tuples(st.integers(0, len(REQUEST)), st.binary(max_size=3)).map(
            lambda t: REQUEST[: t[0]] + t[1] + REQUEST[t[0] + 1 :]
        ),
    ),
    headers=st.dictionaries(
        st.sampled_from(["inference-header-content-length", "content-encoding", "grpc-encoding", "grpc-timeout"]),
        st.sampled_from(["", "0", "5", "-1", "gzip", "deflate", "7S", "x" * 100]),
    ),
)
def test_whatever_bytes_come_no_answer_is_a_failure_of_the_server(
    shared: ModelServer, path: str, body: bytes, headers: dict[str, str]
) -> None:
    to = http.client.HTTPConnection("127.0.0.1", shared.http_port, timeout=DEADLINE_S)
    with contextlib.closing(to):
        to.request("POST", path, body, headers)
        answer = to.getresponse()
        answer.read()

    assert answer.status in (200, 400, 413, 501)
    assert answer.getheader("grpc-status") in (None, "3", "4", "5", "8", "12", "13")
    assert "its log says why" not in answer.getheader("grpc-message", "")  # gRPC calls broken framing INTERNAL, too


def test_a_server_without_files_left_turns_connections_away_and_recovers(model: Path) -> None:
    with running("serve", str(model)) as server:
        pid, before = server.process.pid, len(os.listdir(f"/proc/{server.process.pid}/fd"))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + 8, hard))
        kept = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=DEADLINE_S)
        kept.connect()
        crowd = [socket.create_connection(("127.0.0.1", server.http_port), DEADLINE_S) for _ in range(40)]

        for connection in crowd[20:]:
            connection.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""  # turned away, not left waiting
        kept.request("GET", "/v2/health/live")
        assert kept.getresponse().read() == b'{"live":true}'
        for connection in crowd:
            connection.close()
        until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 2, "the connections are gone")
        assert server.get("/v2/health/live")[0] == 200
        kept.close()
