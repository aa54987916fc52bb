"""Under steady load over both protocols nothing fails while revisions follow each other and operators die."""

from __future__ import annotations

import asyncio
import collections
import pathlib

import numpy as np
import numpy.typing as npt
import onnxruntime
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio

from tests.rig.local_mode import Local

DIGITS = pathlib.Path(__file__).parents[2] / "examples" / "digits"
FIRST, NEXT = DIGITS / "model.yaml", DIGITS / "next" / "model.yaml"

REQUESTS = 10_000
RATE = 200
REPLACEMENTS = 5

Array = npt.NDArray[np.float32]


def answer_of(revision: pathlib.Path, x: Array) -> Array:
    session = onnxruntime.InferenceSession(revision.parent / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], {"image": x})[0], dtype=np.float32)


class Load:
    """Open-loop: each request leaves when the schedule says, whatever became of the earlier ones."""

    def __init__(self, local: Local) -> None:
        with np.load(DIGITS / "eval.npz", allow_pickle=False) as held_out:
            x = held_out["x"][:1]
        self.expected = {"first": answer_of(FIRST, x), "next": answer_of(NEXT, x)}
        self.http = triton_http_aio.InferenceServerClient(f"127.0.0.1:{local.port}", conn_limit=64)
        self.grpc = triton_grpc_aio.InferenceServerClient(f"127.0.0.1:{local.grpc_port}")
        self.http_input = triton_http.InferInput("image", list(x.shape), "FP32")
        self.http_input.set_data_from_numpy(x)
        self.grpc_input = triton_grpc.InferInput("image", list(x.shape), "FP32")
        self.grpc_input.set_data_from_numpy(x)
        self.answers: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.sent = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(REQUESTS):
                await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
                group.create_task(self._ask(number))
                self.sent = number + 1
        await self.http.close()
        await self.grpc.close()

    async def _ask(self, number: int) -> None:
        try:
            if number % 2:
                answer = await self.http.infer("digits", [self.http_input])
            else:
                answer = await self.grpc.infer("digits", [self.grpc_input])
        except Exception as error:
            self.failures.append(f"request {number}: {error!r}")
            return
        scores = answer.as_numpy("scores")
        for revision, expected in self.expected.items():
            if np.allclose(scores, expected, atol=1e-5):
                self.answers[revision] += 1
                return
        self.failures.append(f"request {number}: {scores} is no revision's answer")

    async def until_sent(self, share: float) -> None:
        """Wait until this share of the requests is on its way."""
        async with asyncio.timeout(REQUESTS / RATE + 60):
            while self.sent < share * REQUESTS:
                await asyncio.sleep(0.05)


async def test_no_request_fails_while_revisions_are_replaced_and_operators_killed(local: Local) -> None:
    def revision() -> str:
        return local.serving("digits")

    process = local.up(str(FIRST))
    serving = [await asyncio.to_thread(revision)]
    load = Load(local)
    running = asyncio.create_task(load.run())
    for number in range(REPLACEMENTS):
        await load.until_sent((number + 1) / (REPLACEMENTS + 2))
        wanted = NEXT if number % 2 == 0 else FIRST
        code, _, error = await asyncio.to_thread(local, "apply", "-f", str(wanted))
        assert code == 0, error
        if number == 2:
            # In the middle of a replacement, and while nobody is there to continue it.
            process.kill()
            process.wait()
            process = await asyncio.to_thread(local.up)
        serving.append(await asyncio.to_thread(revision))
    process.kill()
    process.wait()
    process = await asyncio.to_thread(local.up)
    await running

    assert load.failures == []
    assert sum(load.answers.values()) == REQUESTS
    first, following = serving[0], serving[1]
    assert serving == [first, following, first, following, first, following]
    assert min(load.answers.values()) > REQUESTS // 10, "both revisions had their share"
