"""A real server process and a collector: what becomes of a request is held against what its caller sent."""

import contextlib
import http.client
import json
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc as grpcio
import numpy as np
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.contract import GRPC_SERVICE, REQUESTS_PATH
from serving.protocols import grpc
from serving.telemetry import telemetry
from tests.rig import collector, model_server, onnx_models
from tests.rig.collector import Attributes, Collector
from tests.rig.model_server import ModelServer

INFER = "/v2/models/m/infer"
METHOD = f"/{GRPC_SERVICE}/ModelInfer"
CALLER = "b7ad6b7169203331"


@dataclass
class Observed:
    server: ModelServer
    collector: Collector
    log: Path
    spent: int = 0

    def trace(self) -> str:
        """A trace id of its own for each request of these tests."""
        self.spent += 1
        return f"{self.spent:032x}"

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> int:
        return self.server.request("POST", path, json.dumps(body).encode(), headers)[0]

    def spans(self, trace_id: str, count: int) -> list[Span]:
        """The spans of a trace once there are so many, in the order they began."""
        found: list[Span] = []

        def are_there() -> bool:
            found[:] = [span for span in list(self.collector.spans) if span.trace_id.hex() == trace_id]
            return len(found) >= count

        model_server.until(are_there, f"{count} spans of trace {trace_id} come")
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def lines(self, trace_id: str) -> list[dict[str, Any]]:
        """What the request log says of a trace, once it does."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            found[:] = [line for line in lines if line.get("trace_id") == trace_id]
            return bool(found)

        model_server.until(are_there, f"a line of trace {trace_id} comes")
        return found


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """``m`` echoes x FP32 [-1]; ``slow`` never answers while its input ``go`` is true, and has 2 s; ``together`` takes
    x FP32 [-1, 4] and waits for others to be computed with.
    """
    folder = tmp_path_factory.mktemp("models")
    (folder / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    slow, together = folder / "slow", folder / "together"
    slow.mkdir()
    onnx_models.endless(slow / "model.onnx", always=False)
    (slow / "penstock.json").write_text('{"limits": {"timeout": "2s"}}')
    together.mkdir()
    onnx_models.linear(together / "model.onnx")
    (together / "penstock.json").write_text('{"batching": {"maxSize": 8, "maxDelay": "20s"}}')
    log = folder / "requests.jsonl"
    models = [str(path) for path in (folder / "m.identity.json", slow, together)]
    arguments = [*models, "--log-requests", f"1:{log}"]
    with collector.running() as to:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": to.endpoint,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_SERVICE_NAME": "digits-server",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
        with model_server.running("serve", *arguments, env=env) as server:
            yield Observed(server, to, log)


def message(model: str = "m") -> Any:
    x = {"name": "x", "datatype": "FP32", "shape": [2]}
    return grpc.InferRequest(model_name=model, id="7", inputs=[x], raw_input_contents=[np.ones(2, "<f4").tobytes()])


def body(**fields: Any) -> dict[str, Any]:
    return {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 1]}], **fields}


def by_rest(to: Observed, headers: dict[str, str]) -> None:
    assert to.post(INFER, body(), headers) == 200


def by_grpc_over_http1(to: Observed, headers: dict[str, str]) -> None:
    sent = message().SerializeToString()
    framed = b"\0" + struct.pack(">I", len(sent)) + sent
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", to.server.http_port, timeout=60)) as client:
        client.request("POST", METHOD, framed, {"content-type": "application/grpc", **headers})
        answer = client.getresponse()
        assert (answer.status, answer.headers["grpc-status"], len(answer.read()) > 5) == (200, None, True)


def by_grpc(to: Observed, headers: dict[str, str]) -> None:
    with grpcio.insecure_channel(f"127.0.0.1:{to.server.grpc_port}") as channel:
        call: Any = channel.unary_unary(METHOD, lambda sent: sent.SerializeToString(), grpc.InferResponse.FromString)
        call(message(), timeout=30, metadata=tuple(headers.items()))


REST_ATTRIBUTES: Attributes = {
    "http.request.method": "POST",
    "http.response.status_code": 200,
    "http.route": "/v2/models/{model}/infer",
    "url.path": INFER,
    "url.scheme": "http",
}
GRPC_ATTRIBUTES: Attributes = {
    "rpc.system.name": "grpc",
    "rpc.method": METHOD.removeprefix("/"),
    "rpc.response.status_code": "OK",
}
WAYS = [
    pytest.param(by_rest, "POST /v2/models/{model}/infer", REST_ATTRIBUTES, "v2", id="rest"),
    pytest.param(by_grpc_over_http1, METHOD.removeprefix("/"), GRPC_ATTRIBUTES, "grpc", id="grpc-over-http1"),
    pytest.param(by_grpc, METHOD.removeprefix("/"), GRPC_ATTRIBUTES, "grpc", id="grpc"),
]
Send = Callable[[Observed, dict[str, str]], None]


@pytest.mark.parametrize(("send", "name", "expected", "protocol"), WAYS)
def test_a_callers_trace_goes_through_the_queue_and_the_engine(
    observed: Observed, send: Send, name: str, expected: Attributes, protocol: str
) -> None:
    trace_id = observed.trace()

    send(observed, {"traceparent": f"00-{trace_id}-{CALLER}-01", "tracestate": "vendor=1"})

    spans = observed.spans(trace_id, 3)
    server, queue, compute = spans
    assert [span.name for span in spans] == [name, "queue", "compute"]
    assert [span.parent_span_id.hex() for span in spans] == [CALLER, server.span_id.hex(), server.span_id.hex()]
    assert [span.kind for span in spans] == [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_INTERNAL]
    assert {span.trace_state for span in spans} == {"vendor=1"}
    assert server.status.code == Status.STATUS_CODE_UNSET
    found = collector.attributes(server.attributes)
    waited_s = float(found.pop("penstock.queue.duration"))
    assert waited_s == pytest.approx((queue.end_time_unix_nano - queue.start_time_unix_nano) / 1e9, abs=1e-6)
    assert found == expected | {
        "penstock.model.name": "m",
        "penstock.model.version": "1",
        "penstock.request.id": "7",
        "penstock.batch.size": 2,
    } | ({"http.request.body.size": len(json.dumps(body()))} if protocol == "v2" else {})
    times = [
        server.start_time_unix_nano,
        queue.start_time_unix_nano,
        queue.end_time_unix_nano,
        compute.start_time_unix_nano,
        compute.end_time_unix_nano,
        server.end_time_unix_nano,
    ]
    assert times == sorted(times)
    assert abs(server.end_time_unix_nano / 1e9 - time.time()) < 60
    assert observed.collector.resource["service.name"] == "digits-server"

    [line] = observed.lines(trace_id)
    assert set(line) == {
        "time", "protocol", "model", "version", "id", "status", "bytes_in", "bytes_out", "batch",
        "decode_ms", "queue_ms", "compute_ms", "encode_ms", "total_ms", "trace_id",
    }  # fmt: skip
    assert (line["protocol"], line["model"], line["id"], line["status"]) == (protocol, "m", "7", 200)
    phases = sum(line[f"{phase}_ms"] for phase in ("decode", "queue", "compute", "encode"))
    assert phases == pytest.approx(line["total_ms"], abs=0.01)
    total_ns = server.end_time_unix_nano - server.start_time_unix_nano
    assert line["total_ms"] == pytest.approx(total_ns / 1e6, abs=0.01)


@pytest.mark.parametrize(("send", "name", "expected", "protocol"), WAYS)
def test_a_trace_that_its_caller_does_not_sample_is_named_in_the_log_and_nowhere_else(
    observed: Observed, send: Send, name: str, expected: Attributes, protocol: str
) -> None:
    unsampled, sampled = observed.trace(), observed.trace()

    send(observed, {"traceparent": f"00-{unsampled}-{CALLER}-00"})
    send(observed, {"traceparent": f"00-{sampled}-{CALLER}-01"})

    assert len(observed.lines(unsampled)) == 1
    assert len(observed.spans(sampled, 3)) == 3
    assert observed.spans(unsampled, 0) == []


def test_a_request_without_a_trace_gets_one_of_its_own(observed: Observed) -> None:
    observed.post(INFER, body(id="alone"))

    def line() -> dict[str, Any] | None:
        lines = [json.loads(line) for line in observed.log.read_text().splitlines()]
        return next((line for line in lines if line.get("id") == "alone"), None)

    model_server.until(lambda: line() is not None, "the line comes")
    told = line()
    assert told is not None
    server = observed.spans(told["trace_id"], 3)[0]
    assert (server.parent_span_id, server.name) == (b"", "POST /v2/models/{model}/infer")


def test_a_fault_of_the_server_is_an_error_and_a_clients_mistake_is_not(observed: Observed) -> None:
    late, wrong, unknown = observed.trace(), observed.trace(), observed.trace()

    def parent(trace_id: str) -> dict[str, str]:
        return {"traceparent": f"00-{trace_id}-{CALLER}-01"}

    go = {"inputs": [{"name": "go", "datatype": "BOOL", "shape": [], "data": [True]}]}
    assert observed.post("/v2/models/slow/infer", go, parent(late)) == 504
    assert observed.post(INFER, {"inputs": []}, parent(wrong)) == 400
    assert observed.post("/v2/models/secret/versions/3/infer", body(), parent(unknown)) == 404

    server, _, compute = observed.spans(late, 3)
    assert (server.status.code, server.status.message) == (Status.STATUS_CODE_ERROR, "DeadlineExceeded")
    found = collector.attributes(server.attributes)
    assert (found["error.type"], found["http.response.status_code"]) == ("504", 504)
    assert compute.end_time_unix_nano - compute.start_time_unix_nano > 1.5e9
    [server] = observed.spans(unknown, 1)
    assert server.status.code == Status.STATUS_CODE_UNSET
    found = collector.attributes(server.attributes)
    assert (found["http.response.status_code"], found["url.path"]) == (404, "/v2/models/secret/versions/3/infer")
    assert "error.type" not in found
    assert len(observed.spans(wrong, 1)) == 1

    told = {trace_id: observed.lines(trace_id)[0] for trace_id in (late, wrong, unknown)}
    assert [(line["status"], line["reason"], line["error"]) for line in told.values()] == [
        (504, "BACKEND", "DeadlineExceeded"),
        (400, "OTHER", "InvalidInput"),
        (404, "OTHER", "UnknownModel"),
    ]

    page = json.loads(observed.server.get(REQUESTS_PATH)[1])
    [slow] = [table for table in page["slowest"] if table["model"] == "slow"]
    assert slow["requests"][0] == told[late]


def test_the_span_of_a_batch_links_to_its_requests_and_they_to_it(observed: Observed) -> None:
    trace_ids = [observed.trace() for _ in range(4)]
    x = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0] * 8}

    def ask(trace_id: str) -> int:
        headers = {"traceparent": f"00-{trace_id}-{CALLER}-{'01' if trace_id != trace_ids[0] else '00'}"}
        return observed.post("/v2/models/together/infer", {"inputs": [x]}, headers)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, trace_ids)) == [200] * 4

    trees = [observed.spans(trace_id, 3) for trace_id in trace_ids[1:]]
    [link] = {(link.trace_id, link.span_id) for tree in trees for link in tree[2].links}
    model_server.until(lambda: link in _ids(observed.collector.named("batch")), "the batch's span comes")
    batch = next(span for span in observed.collector.named("batch") if (span.trace_id, span.span_id) == link)
    assert [len(tree[2].links) for tree in trees] == [1, 1, 1]
    assert {(link.trace_id, link.span_id) for link in batch.links} == _ids([tree[0] for tree in trees])
    assert batch.parent_span_id == b""
    assert collector.attributes(batch.attributes) == {
        "penstock.model.name": "together",
        "penstock.model.version": "1",
        "penstock.batch.size": 8,
        "penstock.batch.requests": 4,
    }
    assert {collector.attributes(tree[0].attributes)["penstock.batch.size"] for tree in trees} == {8}
    assert {line["batch"] for trace_id in trace_ids for line in observed.lines(trace_id)} == {8}
    for tree in trees:
        assert abs(tree[2].start_time_unix_nano - batch.start_time_unix_nano) < 1e6
        assert abs(tree[2].end_time_unix_nano - batch.end_time_unix_nano) < 1e6


def _ids(spans: list[Span]) -> set[tuple[bytes, bytes]]:
    return {(span.trace_id, span.span_id) for span in spans}


def test_what_is_in_work_is_shown_over_each_protocol_without_its_content(observed: Observed) -> None:
    trace_id = observed.trace()
    go = {"id": "endless", "inputs": [{"name": "go", "datatype": "BOOL", "shape": [], "data": [True]}]}
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-00"}
    call = grpc.InferRequest(model_name="slow", id="stuck")
    call.inputs.add(name="go", datatype="BOOL").contents.bool_contents.append(True)

    def by_channel() -> Any:
        with grpcio.insecure_channel(f"127.0.0.1:{observed.server.grpc_port}") as channel:
            method: Any = channel.unary_unary(METHOD, lambda sent: sent.SerializeToString(), None)
            return method.future(call, timeout=30).code()

    shown: list[dict[str, Any]] = []

    def are_shown() -> bool:
        page = json.loads(observed.server.get(REQUESTS_PATH)[1])
        shown[:] = page["in_work"]["oldest"]
        return {work.get("id") for work in shown} >= {"endless", "stuck"}

    with ThreadPoolExecutor(2) as pool:
        rest = pool.submit(observed.post, "/v2/models/slow/infer", go, headers)
        streamed = pool.submit(by_channel)
        model_server.until(are_shown, "both requests are shown")
        assert (rest.result(), streamed.result()) == (504, grpcio.StatusCode.DEADLINE_EXCEEDED)

    found = {work["id"]: work for work in shown}
    assert found["endless"].pop("age_ms") >= 0
    assert found["endless"] == {
        "protocol": "v2",
        "model": "slow",
        "version": "1",
        "id": "endless",
        "bytes_in": len(json.dumps(go)),
        "trace_id": trace_id,
    }
    assert (found["stuck"]["protocol"], found["stuck"]["model"]) == ("grpc", "slow")


def test_the_page_of_requests_is_for_people_where_they_ask_for_it_and_escapes_what_clients_sent(
    observed: Observed,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        go = {"id": "<script>", "inputs": [{"name": "go", "datatype": "BOOL", "shape": [], "data": [True]}]}
        pool.submit(observed.post, "/v2/models/slow/infer", go).result()

    status, page = observed.server.request("GET", REQUESTS_PATH, headers={"accept": "text/html,*/*"})

    assert status == 200
    assert "<h2>Slowest of slow, version 1</h2>" in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_metrics_over_otlp_are_those_of_the_text(observed: Observed) -> None:
    observed.post(INFER, body())

    def exported() -> dict[str, float]:
        return {name: value for metric in observed.collector.metrics for name, value in _samples(metric)}

    def shown() -> dict[str, float]:
        lines = observed.server.get("/metrics")[1].splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def of_models(samples: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in samples.items() if not name.startswith("process_")}

    model_server.until(lambda: of_models(exported()) == of_models(shown()) != {}, "the export says what the text says")
    assert exported().keys() == shown().keys()


def _samples(metric: Any) -> Iterator[tuple[str, float]]:
    """A metric of OTLP as Prometheus' text would name its samples."""
    kind = metric.WhichOneof("data")
    if kind == "histogram":
        assert metric.histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        for point in metric.histogram.data_points:
            labels, total = _labels(point), 0
            for limit, count in zip([*point.explicit_bounds, "+Inf"], point.bucket_counts, strict=True):
                total += count
                shown = limit if isinstance(limit, str) or metric.name.endswith("seconds") else int(limit)
                yield f'{metric.name}_bucket{{{labels},le="{shown}"}}', total
            yield f"{metric.name}_sum{{{labels}}}", float(f"{point.sum:.15g}")
            yield f"{metric.name}_count{{{labels}}}", point.count
        return
    assert kind in ("sum", "gauge")
    for point in getattr(metric, kind).data_points:
        labels = _labels(point)
        value = float(getattr(point, point.WhichOneof("value")))
        yield metric.name + (f"{{{labels}}}" if labels else ""), float(f"{value:.15g}")


def _labels(point: Any) -> str:
    return ",".join(f'{name}="{value}"' for name, value in collector.attributes(point.attributes).items())


def test_a_request_is_among_the_slowest_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    with model_server.running("serve", str(tmp_path / "m.identity.json")) as server:
        for id in ("first", "second"):
            assert server.request("POST", INFER, json.dumps(body(id=id)).encode())[0] == 200
            [table] = json.loads(server.get(REQUESTS_PATH)[1])["slowest"]
            assert id in {request["id"] for request in table["requests"]}


def test_a_line_says_of_an_answer_that_it_was_kept(tmp_path: Path) -> None:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    log = tmp_path / "requests.jsonl"
    arguments = ["--settings", '{"cache": true}', "--log-requests", f"1:{log}"]
    with model_server.running("serve", str(tmp_path / "m.identity.json"), *arguments) as server:
        for _ in range(2):
            assert server.request("POST", INFER, json.dumps(body()).encode())[0] == 200
        page = json.loads(server.get(REQUESTS_PATH)[1])
        assert server.stop() == 0

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line.get("cached"), "compute_ms" in line) for line in lines] == [(None, True), (True, False)]
    assert "worker" not in page


def test_nothing_is_lost_at_a_clean_end(tmp_path: Path) -> None:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    log = tmp_path / "requests.jsonl"
    with collector.running() as to:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": to.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        arguments = ["serve", str(tmp_path / "m.identity.json"), "--log-requests", f"1:{log}"]
        with model_server.running(*arguments, env=env) as server:
            for _ in range(50):
                assert server.request("POST", INFER, json.dumps(body()).encode())[0] == 200
            assert to.spans == []
            assert server.stop() == 0

        assert len(to.spans) == 150
        assert len(log.read_text().splitlines()) == 50
        [success] = [metric for metric in to.metrics if metric.name == "nv_inference_request_success"]
        assert success.sum.data_points[0].as_int == 50


def test_a_collector_that_is_away_costs_a_line_and_a_bounded_end(tmp_path: Path) -> None:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_METRIC_EXPORT_INTERVAL": "10",
    }
    process = model_server.start("serve", str(tmp_path / "m.identity.json"), env=env)
    try:
        assert process.stdout is not None
        server = ModelServer(process, json.loads(process.stdout.readline())["http_port"], None)
        for _ in range(20):
            assert server.request("POST", INFER, json.dumps(body()).encode())[0] == 200
        process.terminate()
        _, errors = process.communicate(timeout=model_server.DEADLINE_S)
    finally:
        process.kill()

    assert process.returncode == 0
    lines = [line for line in errors.splitlines() if "opentelemetry" in line]
    assert 1 <= len(lines) <= 4, errors
    assert telemetry.CLOSE_S < 10


def test_without_opentelemetry_a_server_says_so_and_serves(tmp_path: Path) -> None:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('no module of this name')\n")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": str(tmp_path)}
    process: subprocess.Popen[str] = model_server.start("serve", str(tmp_path / "m.identity.json"), env=env)
    try:
        assert process.stdout is not None
        server = ModelServer(process, json.loads(process.stdout.readline())["http_port"], None)
        assert server.request("POST", INFER, json.dumps(body()).encode())[0] == 200
        process.terminate()
        _, errors = process.communicate(timeout=model_server.DEADLINE_S)
    finally:
        process.kill()

    assert "install penstock[telemetry] to have it" in errors
