import time
from typing import Any

from serving.protocols import grpc
from serving.telemetry import statistics
from serving.telemetry.metrics import ModelCounters


def counted() -> ModelCounters:
    counters = ModelCounters()
    for rows, infer_s in ((4, 0.25), (1, 0.125), (4, 0.5)):
        counters.executed(rows, infer_s, time.perf_counter())
        counters.compute_infer_s += infer_s
        counters.succeeded(1.0)
    counters.queue_s, counters.compute_input_s, counters.compute_output_s = 0.001, 0.002, 0.003
    counters.failed("OTHER", 0.5)
    counters.failed("REJECTED")
    return counters


def duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}


def batch(rows: int, count: int, ns: int) -> dict[str, Any]:
    nothing = duration(count, 0)
    return {
        "batch_size": rows,
        "compute_input": nothing,
        "compute_infer": duration(count, ns),
        "compute_output": nothing,
    }


def test_statistics_have_tritons_form() -> None:
    before_ms = time.time() * 1000

    found = statistics.of("digits", "2", counted())

    assert before_ms - 1000 < found.pop("last_inference") < before_ms + 1000
    assert found == {
        "name": "digits",
        "version": "2",
        "inference_count": 9,
        "execution_count": 3,
        "inference_stats": {
            "success": duration(3, 3_000_000_000),
            "fail": duration(2, 500_000_000),
            "queue": duration(3, 1_000_000),
            "compute_input": duration(3, 2_000_000),
            "compute_infer": duration(3, 875_000_000),
            "compute_output": duration(3, 3_000_000),
            "cache_hit": duration(0, 0),
            "cache_miss": duration(0, 0),
        },
        "batch_stats": [batch(1, 1, 125_000_000), batch(4, 2, 750_000_000)],
    }


def test_a_model_that_never_answered_has_no_last_inference() -> None:
    assert statistics.of("digits", "1", ModelCounters())["last_inference"] == 0


def test_statistics_are_a_message_of_the_protocol() -> None:
    _, answer = grpc.METHODS["ModelStatistics"]

    message = answer(model_stats=[statistics.of("digits", "2", counted())])

    assert message.model_stats[0].inference_stats.success.count == 3
    assert [entry.batch_size for entry in message.model_stats[0].batch_stats] == [1, 4]


def test_sizes_that_clients_choose_do_not_grow_the_statistics_without_end() -> None:
    counters = ModelCounters()

    for rows in range(1000):
        counters.executed(rows, 0.0, 1.0)
    counters.executed(0, 0.0, 1.0)

    assert (counters.execs, len(counters.batches), counters.batches[0]) == (1001, 256, (2, 0.0))


def test_statistics_of_several_processes_add_up_per_version() -> None:
    one, other = statistics.of("digits", "2", counted()), statistics.of("digits", "2", counted())
    other["last_inference"] = one["last_inference"] + 5
    other["batch_stats"][0]["batch_size"] = 8
    alone = statistics.of("digits", "1", ModelCounters())

    assert statistics.added([[one], [other, alone]]) == [
        alone,
        {
            "name": "digits",
            "version": "2",
            "last_inference": other["last_inference"],
            "inference_count": 18,
            "execution_count": 6,
            "inference_stats": {
                "success": duration(6, 6_000_000_000),
                "fail": duration(4, 1_000_000_000),
                "queue": duration(6, 2_000_000),
                "compute_input": duration(6, 4_000_000),
                "compute_infer": duration(6, 1_750_000_000),
                "compute_output": duration(6, 6_000_000),
                "cache_hit": duration(0, 0),
                "cache_miss": duration(0, 0),
            },
            "batch_stats": [
                batch(1, 1, 125_000_000),
                batch(4, 4, 1_500_000_000),
                batch(8, 1, 125_000_000),
            ],
        },
    ]
