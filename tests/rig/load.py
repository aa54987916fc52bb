"""Steady load with the digits model over REST and gRPC, each answer compared with ONNX Runtime's.

Open-loop: each request leaves when the schedule says, whatever became of the earlier ones. Nothing is sent twice, so
every transient failure is counted.

``python -m tests.rig.load --http ADDRESS --grpc ADDRESS --rate N --around M`` says ``under way`` once M requests are
sent, goes on until its standard input ends, sends M more, and then prints one JSON object: ``sent``, ``answers`` by
revision, ``failures``. As a process of its own it can run where the router's address is 127.0.0.1, in a node's network
namespace for example.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio

from serving.contract import MODEL_METADATA_KEY

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
FIRST, NEXT = DIGITS / "plain.yaml", DIGITS / "next" / "model.yaml"

UNDER_WAY = "under way"

Array = npt.NDArray[np.float32]


def sample() -> Array:
    """The held-out picture, as the model takes it, (1, 1, 32, 32), whose answers tell the revisions best apart."""
    with np.load(DIGITS / "eval.npz", allow_pickle=False) as held_out:
        pictures = np.asarray(held_out["x"], dtype=np.float32)
    differences = np.abs(answer_of(FIRST, pictures) - answer_of(NEXT, pictures)).max(axis=1)
    return pictures[[differences.argmax()]]


def answer_of(revision: pathlib.Path, x: Array) -> Array:
    """What ONNX Runtime says, called directly: scores of shape (N, 10)."""
    session = onnxruntime.InferenceSession(revision.parent / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], {"image": x})[0], dtype=np.float32)


@dataclasses.dataclass
class Load:
    """Half of the requests over REST to ``http``, half over gRPC to ``grpc``; both HOST:PORT."""

    http: str
    grpc: str
    rate: float
    namespace: str = "default"
    tolerance: float = 1e-5
    """How far a score may be from ONNX Runtime's."""
    answers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    sent: int = 0

    async def run(self, ended: Callable[[], bool]) -> None:
        """Send until ``ended``, then wait for the answers under way."""
        x = sample()
        self._expected = {"first": answer_of(FIRST, x), "next": answer_of(NEXT, x)}
        # A client that neither names a namespace nor a host means the model of that name in `default`.
        elsewhere = self.namespace != "default"
        self._headers = {MODEL_METADATA_KEY: f"{self.namespace}/digits"} if elsewhere else None
        base = f"/{self.namespace}/digits" if elsewhere else ""
        self._http = triton_http_aio.InferenceServerClient(self.http + base, conn_limit=64)
        self._grpc = triton_grpc_aio.InferenceServerClient(self.grpc)
        self._http_input = triton_http.InferInput("image", list(x.shape), "FP32")
        self._http_input.set_data_from_numpy(x)
        self._grpc_input = triton_grpc.InferInput("image", list(x.shape), "FP32")
        self._grpc_input.set_data_from_numpy(x)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            while not ended():
                await asyncio.sleep(max(0.0, began + self.sent / self.rate - loop.time()))
                group.create_task(self._ask(self.sent))
                self.sent += 1
        await self._http.close()
        await self._grpc.close()

    async def _ask(self, number: int) -> None:
        try:
            if number % 2:
                answer = await self._http.infer("digits", [self._http_input])
            else:
                answer = await self._grpc.infer("digits", [self._grpc_input], headers=self._headers)
        except Exception as error:
            self.failures.append(f"request {number} ({'REST' if number % 2 else 'gRPC'}): {error!r} {error}")
            return
        scores = answer.as_numpy("scores")
        for revision, expected in self._expected.items():
            if np.allclose(scores, expected, atol=self.tolerance):
                self.answers[revision] += 1
                return
        self.failures.append(f"request {number}: {scores} is no revision's answer")


@dataclasses.dataclass
class Outcome:
    """What became of a load that ran as a process of its own; known once it has ended."""

    sent: int = 0
    answers: dict[str, int] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def steady(
    within: Callable[..., list[str]], http: str, grpc: str, rate: float, namespace: str, around: int
) -> Iterator[Outcome]:
    """Load while the block lasts, and ``around`` requests before and after it; ``within`` makes its command line."""
    outcome = Outcome()
    options = (f"--http={http}", f"--grpc={grpc}", f"--rate={rate}", f"--namespace={namespace}", f"--around={around}")
    command, pipe = within(sys.executable, "-m", "tests.rig.load", *options), subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    begun = ""
    try:
        begun = process.stdout.readline()
        if begun == f"{UNDER_WAY}\n":
            yield outcome
    finally:
        said, errors = process.communicate(timeout=120)
    assert (process.returncode, begun) == (0, f"{UNDER_WAY}\n"), errors
    for name, value in json.loads(said).items():
        setattr(outcome, name, value)


def main(arguments: Sequence[str]) -> int:
    """Send until standard input ends, then say what became of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.rig.load")
    parser.add_argument("--http", required=True)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--around", type=int, required=True)
    parser.add_argument("--namespace", default="default")
    given = parser.parse_args(arguments)

    async def run() -> Load:
        load = Load(given.http, given.grpc, given.rate, given.namespace)
        told = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        last: int | None = None

        def ended() -> bool:
            nonlocal last
            if load.sent == given.around:
                print(UNDER_WAY, flush=True)
            if last is None and told.done():
                last = load.sent + given.around
            return load.sent == last

        await load.run(ended)
        return load

    load = asyncio.run(run())
    print(json.dumps({"sent": load.sent, "answers": dict(load.answers), "failures": load.failures}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
