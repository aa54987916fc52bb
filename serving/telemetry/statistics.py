"""What was counted for a model version, in the form of Triton's statistics extension.

Times are sums in nanoseconds since the process started. An engine is called with tensors that need no further
preparing, so of a batch only ``compute_infer`` has a time; decoding and encoding are counted per request, under
``inference_stats``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any

from serving.telemetry.metrics import ModelCounters


def of(name: str, version: str, counters: ModelCounters) -> dict[str, Any]:
    """One entry of ``model_stats``."""
    answered = counters.successes
    return {
        "name": name,
        "version": version,
        "last_inference": _epoch_ms(counters.last_s),
        "inference_count": counters.inferences,
        "execution_count": counters.execs,
        "inference_stats": {
            "success": _duration(answered, counters.request_s),
            "fail": _duration(sum(counters.failures.values()), counters.failure_s),
            "queue": _duration(answered, counters.queue_s),
            "compute_input": _duration(answered, counters.compute_input_s),
            "compute_infer": _duration(answered, counters.compute_infer_s),
            "compute_output": _duration(answered, counters.compute_output_s),
            "cache_hit": _duration(counters.cache_hits, counters.cache_hit_s),
            "cache_miss": _duration(counters.cache_misses, counters.cache_miss_s),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(count, 0.0),
                "compute_infer": _duration(count, infer_s),
                "compute_output": _duration(count, 0.0),
            }
            for rows, (count, infer_s) in sorted(counters.batches.items())
        ],
    }


def added(processes: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The entries of several processes as those of one: numbers add up, the latest inference is the last."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in itertools.chain.from_iterable(processes):
        key = entry["name"], entry["version"]
        found[key] = _sum(found[key], entry) if key in found else entry
    return [entry for _, entry in sorted(found.items())]


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            result[name] = _sum(one[name], value)
        elif isinstance(value, list):
            batches = {batch["batch_size"]: batch for batch in one[name]}
            for batch in value:
                size = batch["batch_size"]
                batches[size] = _sum(batches[size], batch) if size in batches else batch
            result[name] = [batch for _, batch in sorted(batches.items())]
        elif name == "last_inference":
            result[name] = max(one[name], value)
        elif name not in ("name", "version", "batch_size"):
            result[name] = one[name] + value
    return result


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}


def _epoch_ms(at_s: float) -> int:
    """Milliseconds since the epoch of a moment of ``time.perf_counter``; 0 for never."""
    return round((time.time() - time.perf_counter() + at_s) * 1000) if at_s else 0
