"""What BentoML serves: ONNX Runtime."""

from __future__ import annotations

import os

import bentoml
import numpy as np

from benchmarks.peers import engine

_BATCH = int(os.environ["BENCHMARK_BATCH"])
_BATCHING = {"batchable": True, "max_batch_size": _BATCH, "max_latency_ms": 1000} if _BATCH > 1 else {}


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Onnx:
    """One ONNX model."""

    def __init__(self) -> None:
        self.session = engine.session(os.environ["BENCHMARK_MODEL"])

    @bentoml.api(route="/infer", **_BATCHING)
    async def infer(self, input: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self.session.run(None, {engine.INPUT: input.astype(np.float32)})[0]
        return answer
