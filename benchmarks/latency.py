"""How long does a served model take to answer, at a given rate of arrivals?

Needs a served model (``make up`` in another terminal) and one sample of its input.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np

from benchmarks import arrivals, load, origin, report


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--url", default="http://127.0.0.1:8080/v2/models/digits", help="the model's URL")
    parser.add_argument("--samples", type=Path, default=Path("examples/digits/eval.npz"), help="npz with x")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--raw", type=Path, default=Path("build/latency.jsonl"), help="where raw samples go")


async def measure(
    url: str, sample: np.ndarray[tuple[int, ...], np.dtype[np.float32]], due: Sequence[float]
) -> tuple[load.Sample, ...]:
    """Send ``sample`` to the model at ``url`` at each moment of ``due``."""
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(limits=limits, timeout=30.0) as client:
        metadata = (await client.get(url)).raise_for_status().json()
        tensor = {"name": metadata["inputs"][0]["name"], "datatype": "FP32", "shape": list(sample.shape)}
        body = json.dumps({"inputs": [{**tensor, "data": sample.ravel().tolist()}]}).encode()

        async def send() -> str:
            try:
                answer = await client.post(f"{url}/infer", content=body)
            except httpx.HTTPError as error:
                return type(error).__name__
            return "" if answer.status_code == 200 else f"HTTP {answer.status_code}"

        return await load.drive(send, due, time.perf_counter)


def run(options: argparse.Namespace) -> int:
    """Measure and print; 1 if any request failed."""
    with np.load(options.samples, allow_pickle=False) as samples:
        sample = samples["x"][:1].astype(np.float32)
    due = arrivals.poisson(options.rate, options.seconds, options.seed)
    try:
        taken = asyncio.run(measure(options.url, sample, due))
    except httpx.HTTPError as error:
        print(
            f"{options.url}: {error}; serve the model first, with `make up` in another terminal",
            file=sys.stderr,
        )
        return 1
    options.raw.parent.mkdir(parents=True, exist_ok=True)
    options.raw.write_text("".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in taken))
    summary = report.summarise(taken)
    question = f"How long does {options.url} take to answer at {options.rate:g} requests a second?"
    print(report.text(question, {**origin.described(), "raw": str(options.raw)}, summary))
    return 1 if summary.failed else 0
