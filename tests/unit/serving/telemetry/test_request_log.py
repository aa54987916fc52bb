import os
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from serving.telemetry.records import Record
from serving.telemetry.request_log import MAX_WAITING, NOTABLE_PER_S, RequestLog
from serving.telemetry.slowest import SLOW_S
from tests.rig.model_server import until

RECORD = Record(
    ended_at=1767225599.9996,
    protocol="v2",
    model="m",
    version="1",
    id="7",
    status=503,
    reason="REJECTED",
    error="Overloaded",
    bytes_in=10,
    bytes_out=20,
    batch=4,
    decode_s=0.001,
    queue_s=0.002,
    compute_s=0.003,
    encode_s=0.0045,
    total_s=0.0105,
    trace_id="ab",
)


def lines(descriptor: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(descriptor) as file:
        for line in file:
            yield orjson.loads(line)


def test_a_line_says_everything_that_is_known_and_nothing_that_is_not() -> None:
    reading, writing = os.pipe()
    log = RequestLog(1, writing)
    log.write(RECORD)
    log.write(
        RECORD._replace(version="", id="", batch=None, decode_s=None, queue_s=None, compute_s=None, encode_s=None)
    )
    log.close()
    os.close(writing)

    common = {
        "time": "2025-12-31T23:59:59.999+00:00",
        "protocol": "v2",
        "model": "m",
        "status": 503,
        "reason": "REJECTED",
        "error": "Overloaded",
        "bytes_in": 10,
        "bytes_out": 20,
        "total_ms": 10.5,
        "trace_id": "ab",
    }
    phases = {"decode_ms": 1.0, "queue_ms": 2.0, "compute_ms": 3.0, "encode_ms": 4.5}
    assert list(lines(reading)) == [common | phases | {"version": "1", "id": "7", "batch": 4}, common]


def test_failures_and_slow_requests_are_wanted_whatever_the_rate_but_not_more_than_so_many_a_second() -> None:
    log = RequestLog(0, os.open(os.devnull, os.O_WRONLY))

    assert not log.wants(SLOW_S / 2, False, now=7.0)
    assert all(log.wants(0, True, now=7.5) for _ in range(NOTABLE_PER_S - 1))
    assert log.wants(SLOW_S, False, now=7.6)
    assert not log.wants(SLOW_S, True, now=7.9)
    assert log.wants(0, True, now=8.0)
    log.close()


def test_who_reads_too_slowly_loses_lines_and_is_told_how_many() -> None:
    reading, writing = os.pipe()
    log = RequestLog(1, writing)
    written = 2 * MAX_WAITING
    for _ in range(written):  # the pipe takes some hundred lines, then the writer waits for a reader
        log.write(RECORD)
    found: list[dict[str, Any]] = []

    def read() -> None:
        for line in lines(reading):
            found.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: len(found) >= MAX_WAITING, "what waits is written")
    log.write(RECORD)
    log.close()
    os.close(writing)
    reader.join(30)

    lost = sum(line.get("lost", 0) for line in found)
    assert lost > 0
    assert len(found) + lost == written + 1


def test_a_file_that_cannot_be_written_any_more_ends_the_log_and_not_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = RequestLog(1, writing)

    log.write(RECORD)
    log.close()
    log.write(RECORD)

    assert [entry.getMessage() for entry in caplog.records] == ["requests are not logged any more: Broken pipe"]
    os.close(writing)
