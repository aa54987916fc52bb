"""Artifacts brought to this machine by child processes, one for each wish.

What is on disk is what is known: an artifact whose folder is there is fetched, whoever fetched it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from operators.api.plan import Fetch, FetchObserved, FetchState
from operators.router import daemon
from serving.contract import Env, Exit

_RETRY_S = {
    FetchState.UNAVAILABLE: (1.0, 60.0),
    # A file that was missing or wrong may be put right where it is, and nobody tells us.
    FetchState.REFUSED: (15.0, 600.0),
}
"""First and longest wait before a fetch that failed is tried again."""
_END_TIMEOUT_S = 2.0


class Fetching:
    """Artifacts below ``folder``/artifacts. ``changed`` is called whenever ``observed`` would say something else."""

    def __init__(
        self, folder: Path, python: str, environment: Mapping[str, str], changed: Callable[[Fetch], None]
    ) -> None:
        self._folder = folder
        self._store = folder / "artifacts"
        self._python = python
        self._environment = environment
        self._changed = changed
        self._results: dict[Fetch, FetchObserved] = {}
        self._tasks: dict[Fetch, asyncio.Task[None]] = {}
        self._running = 0

    def path(self, digest: str) -> Path:
        """Folder of an artifact."""
        return self._store / digest.replace(":", "-")

    def observed(self, fetch: Fetch) -> FetchObserved:
        """How far a fetch has come."""
        digest = fetch.digest or (self._results[fetch].digest if fetch in self._results else None)
        if digest is not None and self.path(digest).is_dir():
            return FetchObserved(FetchState.FETCHED, digest)
        known = self._results.get(fetch)
        return known if known and known.state is not FetchState.FETCHED else FetchObserved(FetchState.FETCHING)

    def want(self, wishes: Iterable[Fetch]) -> None:
        """Fetch what is wished and not there, and stop fetching what no longer is."""
        wanted = set(wishes)
        for fetch in self._tasks.keys() - wanted:
            self._tasks.pop(fetch).cancel()
        for fetch in self._results.keys() - wanted:
            del self._results[fetch]
        for fetch in wanted:
            if fetch not in self._tasks and self.observed(fetch).state is FetchState.FETCHING:
                self._tasks[fetch] = asyncio.create_task(self._fetch(fetch))

    def keep_only(self, digests: Iterable[str]) -> None:
        """Delete every artifact but these; not while one is being written, for its digest may not be known yet."""
        kept = {self.path(digest).name for digest in digests}
        kept |= {self.path(result.digest).name for result in self._results.values() if result.digest}
        if self._running or not self._store.is_dir():
            return
        for found in self._store.iterdir():
            if found.name not in kept:
                # Renamed first: half an artifact must not be found under its name.
                gone = found.with_name(f".gone-{found.name}")
                found.replace(gone)
                shutil.rmtree(gone)

    async def stop(self) -> None:
        """End all fetches that are under way."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, fetch: Fetch) -> None:
        failures = 0
        while True:
            self._running += 1
            try:
                result = await self._once(fetch)
            finally:
                self._running -= 1
            before, self._results[fetch] = self._results.get(fetch), result
            if result.state is FetchState.FETCHED:
                del self._tasks[fetch]
                self._changed(fetch)
                return
            if result != before:
                self._changed(fetch)
            first_s, longest_s = _RETRY_S[result.state]
            await asyncio.sleep(min(longest_s, first_s * 2.0**failures))
            failures += 1

    async def _once(self, fetch: Fetch) -> FetchObserved:
        name = hashlib.sha256(repr(fetch).encode()).hexdigest()[:16]
        last_words = self._folder / "children" / "fetch" / f"{name}.last-words"
        last_words.parent.mkdir(parents=True, exist_ok=True)
        last_words.unlink(missing_ok=True)
        command = [self._python, "-m", "serving", "fetch", "--uri", fetch.uri, "--store", str(self._store)]
        try:
            running = daemon.start(
                command if fetch.digest is None else [*command, "--digest", fetch.digest],
                environment={**self._environment, Env.TERMINATION_LOG: str(last_words)},
                folder=Path.cwd(),
                log=self._folder / "logs" / "fetch" / f"{name}.log",
                record=self._folder / "children" / "fetch" / f"{name}.json",
                notes={},
            )
        except OSError as error:
            return FetchObserved(FetchState.UNAVAILABLE, None, f"fetch of {fetch.uri} did not start: {error.strerror}")
        try:
            while running.alive:
                await asyncio.sleep(daemon.POLL_S)
        finally:
            await running.end(_END_TIMEOUT_S)
        said = last_words.read_text(errors="replace").strip() if last_words.exists() else ""
        last_words.unlink(missing_ok=True)
        match running.exit_code:
            case Exit.OK:
                try:
                    return FetchObserved(FetchState.FETCHED, json.loads(said)["digest"])
                except (ValueError, KeyError, TypeError):
                    return FetchObserved(FetchState.UNAVAILABLE, None, f"fetch of {fetch.uri} said: {said!r}")
            case Exit.REFUSED | Exit.USAGE:
                return FetchObserved(FetchState.REFUSED, None, said or f"{fetch.uri} was refused")
            case code:
                return FetchObserved(
                    FetchState.UNAVAILABLE, None, said or f"fetch of {fetch.uri} ended with code {code}"
                )
