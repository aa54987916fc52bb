"""How far builders are, asked of each every few seconds on its own port.

A builder reaches no API, and its log is nobody's to read but its namespace's, so the operator asks. What answers runs
in a tenant's namespace and may be anything: it gets a second, 2 KiB, no redirect and no second chance until the next
round, and all it can do is to put a sentence into the status of its own Model. Asked by a task of its own, so that
nothing that serves waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import aiohttp
import pydantic

from operators.actuators.kubernetes import build_results
from operators.actuators.kubernetes.build_jobs import BUILD_LABEL, BUILT_FOR_LABEL
from operators.api.builder import Progress
from operators.api.plan import Key
from operators.runtime.resource import Object, key_of
from serving import contract

_ROUND_S = 2.0
_PATIENCE_S = 1.0
_MOST_BYTES = 2048
_AT_ONCE = 16


class Progresses:
    """What the builders among ``pods`` said last; ``changed`` hears of each Model for which it is something new."""

    def __init__(
        self,
        pods: Callable[[], Iterable[Object]],
        changed: Callable[[Key], None],
        port: int = contract.BUILD_PORT,
    ) -> None:
        self._pods = pods
        self._changed = changed
        self._port = port
        self._said: dict[str, str] = {}

    def said(self, job_uid: str) -> str:
        """What the builder of a Job said last; empty before it did."""
        return self._said.get(job_uid, "")

    async def run(self) -> None:
        """Ask until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        limits = aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=limits, trust_env=False) as session:
            while True:
                await self._round(session)
                await asyncio.sleep(_ROUND_S)

    async def _round(self, session: aiohttp.ClientSession) -> None:
        working = [pod for pod in self._pods() if _job(pod) and build_results.running(pod)]
        for gone in self._said.keys() - {_job(pod) for pod in working}:
            del self._said[gone]
        answers = await asyncio.gather(*(self._asked(session, build_results.running(pod)) for pod in working))
        for pod, answer in zip(working, answers, strict=True):
            # Silence is no news: a builder may be too busy, or a network policy in the way.
            if answer and answer != self._said.get(_job(pod)):
                self._said[_job(pod)] = answer
                self._changed(Key("Model", key_of(pod).namespace, pod["metadata"]["labels"][BUILT_FOR_LABEL]))

    async def _asked(self, session: aiohttp.ClientSession, address: str) -> str:
        host = f"[{address}]" if ":" in address else address
        try:
            async with session.get(f"http://{host}:{self._port}/", allow_redirects=False) as answer:
                text = await answer.content.read(_MOST_BYTES)
                return str(Progress.model_validate_json(text))
        except (aiohttp.ClientError, TimeoutError, OSError, pydantic.ValidationError):
            return ""


def _job(pod: Object) -> str:
    """The uid of the Job that a builder's pod was made for; empty of another pod."""
    labels = pod["metadata"].get("labels") or {}
    if BUILD_LABEL not in labels or BUILT_FOR_LABEL not in labels:
        return ""
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner["kind"] == "Job"), "")
