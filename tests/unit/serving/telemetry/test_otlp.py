import logging

import pytest

from serving.telemetry import otlp

BOTH = frozenset({"traces", "metrics"})


@pytest.mark.parametrize(
    ("env", "signals"),
    [
        ({}, frozenset()),
        ({"OTEL_SERVICE_NAME": "s", "OTEL_TRACES_SAMPLER": "always_on"}, frozenset()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, BOTH),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}, frozenset()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, {"traces"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "console, otlp"}, BOTH),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, {"metrics"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, {"traces"}),
    ],
)
def test_a_signal_is_asked_for_by_an_endpoint_and_left_out_by_its_exporter(
    env: dict[str, str], signals: set[str]
) -> None:
    assert otlp.signals(env) == signals


def test_a_protocol_that_is_not_spoken_is_said_and_leaves_its_signal_out(caplog: pytest.LogCaptureFixture) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}

    assert otlp.signals(env) == {"metrics"}
    assert [record.getMessage() for record in caplog.records] == [
        "no traces are exported: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', "
        "expected 'http/protobuf' (a collector's port 4318)"
    ]


def test_what_an_exporter_repeats_is_said_once_a_minute() -> None:
    clock = iter((1000.0, 1001.0, 1059.0, 1061.0))
    seldom = otlp.Seldom(lambda: next(clock))
    record = logging.LogRecord("exporter", logging.WARNING, "file", 1, "the collector is away", None, None)

    assert [seldom.filter(record) for _ in range(4)] == [True, False, False, True]
