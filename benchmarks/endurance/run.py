"""The course of it: clients, and beside them what happens to the servers."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks.endurance import clients
from benchmarks.endurance.clients import Channels, Gate, Score
from benchmarks.endurance.local import Local, Replica

CLIENTS = {"json": 5, "binary": 4, "v1": 3, "grpc": 3, "direct": 1, "streams": 1}
EVENTS = ("swap", "unload and load", "end a replica", "swap", "kill a worker", "unload and load", "kill a replica",
          "swap", "apply a revision")  # fmt: skip
PROGRESS_S = 5.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of it."""

    score: Score
    events: collections.Counter[str]
    problems: list[str]
    """Events that did not come about."""
    seconds: float

    def is_clean(self) -> bool:
        """Whether every request was answered, and rightly, and every event came about."""
        return not (self.score.failed or self.score.wrong or self.problems) and all(self.events[e] for e in EVENTS)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        score = self.score
        return {
            "requests": score.sent,
            "answered": dict(score.answered),
            "failed": sum(score.failed.values()),
            "wrong": sum(score.wrong.values()),
            "events": dict(self.events),
            "problems": self.problems,
            "notes": score.notes,
            "versions": {"whole": len(score.whole_versions), "linear": len(score.linear_versions)},
            "seconds": round(self.seconds, 1),
            "requests_per_s": round(score.sent / self.seconds, 1),
        }


async def endure(folder: Path, requests: int) -> Outcome:
    """So many requests, and at least one round of events."""
    local = Local(folder)
    with local.running():
        replicas = await local.well()
        score = Score(requests, known={1})
        direct, streams, channels = Gate(), Gate(), Channels()
        await channels.lead_to([replica.grpc_port for replica in replicas])
        routed = grpc.aio.insecure_channel(f"127.0.0.1:{local.grpc_port}")
        began = time.monotonic()
        asking = [
            *(clients.rest(score, local.port, kind) for kind in ("json", "binary", "v1") for _ in range(CLIENTS[kind])),
            *(clients.grpc_unary(score, "grpc", lambda: routed, None) for _ in range(CLIENTS["grpc"])),
            *(clients.grpc_unary(score, "direct", channels.next, direct) for _ in range(CLIENTS["direct"])),
            *(clients.grpc_streams(score, "streams", routed, streams) for _ in range(CLIENTS["streams"])),
        ]
        happening = _Happening(local, score, direct, streams, channels)
        events = asyncio.ensure_future(happening.go_on())
        progress = asyncio.ensure_future(_progress(score, happening.events, began))
        await asyncio.gather(*asking)
        seconds = time.monotonic() - began
        happening.enough = True
        await events
        progress.cancel()
        await routed.close()
        await channels.lead_to([])
    return Outcome(score, happening.events, happening.problems, seconds)


class _Happening:
    def __init__(self, local: Local, score: Score, direct: Gate, streams: Gate, channels: Channels) -> None:
        self._local = local
        self._score = score
        self._direct = direct
        self._streams = streams
        self._channels = channels
        self._versions = itertools.count(2)
        self.events: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.enough = False

    async def go_on(self) -> None:
        """One event after the other, each when all is well again."""
        for turn, event in enumerate(itertools.cycle(EVENTS)):
            self._score.rounds = turn // len(EVENTS)
            if self.enough:
                return
            try:
                await self._one(event, turn)
                self.events[event] += 1
            except Exception as error:
                self.problems.append(f"{event}: {type(error).__name__} {error}"[:2000])

    async def _one(self, event: str, turn: int) -> None:
        replicas = await self._local.well()
        replica = replicas[turn // len(EVENTS) % len(replicas)]
        match event:
            case "swap":
                await self._local.swap(replicas, self._version())
            case "unload and load":
                await self._local.come_and_go(replicas)
            case "end a replica":
                async with self._direct.closed(), self._streams.closed():
                    self._local.end(replica)
                    await self._again(replica)
            case "apply a revision":
                async with self._direct.closed():
                    await self._local.apply(self._version())
                    await self._again()
            case "kill a worker":
                async with self._direct.closed(), self._streams.closed():
                    self._local.kill_worker(replica)
                    await self._again()
            case "kill a replica":
                async with self._direct.closed(), self._streams.closed():
                    self._local.kill(replica)
                    await self._again(replica)

    def _version(self) -> int:
        version = next(self._versions)
        self._score.known.add(version)
        return version

    async def _again(self, gone: Replica | None = None) -> None:
        """Waits until all is well without a replica that is to go, and tells the direct calls where."""
        if gone is not None:
            await asyncio.to_thread(gone.process.wait, 60)
        replicas = await self._local.well()
        await self._channels.lead_to([replica.grpc_port for replica in replicas])


async def _progress(score: Score, events: collections.Counter[str], began: float) -> None:
    async for taken_s in _every(PROGRESS_S):
        failed, wrong = sum(score.failed.values()), sum(score.wrong.values())
        print(
            f"{score.sent:>9} of {score.wanted} requests, {score.sent / (time.monotonic() - began):6.0f}/s, "
            f"{failed} failed, {wrong} wrong, {sum(events.values())} events, {taken_s:.0f} s",
            file=sys.stderr,
            flush=True,
        )


async def _every(seconds: float) -> AsyncIterator[float]:
    began = time.monotonic()
    while True:
        await asyncio.sleep(seconds)
        yield time.monotonic() - began
