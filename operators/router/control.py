"""HAProxy's master socket: which processes there are, reload, and commands to each worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from operators.api.errors import Unreachable
from operators.router import counting, workers
from operators.router.configuration import MAPS
from operators.router.workers import Worker

SOCKET = "master.sock"
_TIMEOUT_S = 5.0
_LEAVING_TIMEOUT_S = 0.5
"""A worker that ends while it is asked takes the answer with it, and the master does not say so."""
_RELOAD_TIMEOUT_S = 20.0
_STOPPING_POLL_S = 0.01
_PATH_BYTES = 100
"""What an address of a Unix socket may be long, on every system."""


class Control:
    """Commands to the HAProxy that runs in ``folder``. Everything raises ``Unreachable`` if it does not answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def workers(self) -> list[int]:
        """Process ids of the workers, the current one first, then those that finish what they began."""
        answer = await self.ask("show proc")
        found = [int(line.split()[0]) for line in answer.splitlines() if " worker " in line]
        if not found:
            raise Unreachable(f"router in {self._folder} has no worker: {answer.strip()!r}; it is started again")
        return found

    async def structure(self, worker: int) -> str:
        """What the worker's configuration file calls itself."""
        return (await self._info(worker)).get("description", "")

    async def read(self, worker: int, timeout_s: float = _TIMEOUT_S) -> Worker:
        """All of a worker that we program."""
        maps = {file: workers.parse_map(await self.ask(f"@!{worker} show map {file}", timeout_s)) for file in MAPS}
        answer = await self.ask(f"@!{worker} show stat -1 6 -1", timeout_s)
        try:
            return Worker(maps, workers.parse_backends(answer))
        except (LookupError, ValueError) as error:
            # The master answers in the place of a worker that has just ended.
            raise Unreachable(f"router worker {worker} in {self._folder} answers {answer[:200]!r}") from error

    async def counts(self, worker: int) -> tuple[str, str]:
        """Which process a worker is, for ever, and what it has counted, as ``counting.parse`` takes it."""
        began = (await self._info(worker)).get("Start_time_sec")
        answer = await self.ask(f"@!{worker} show table {counting.TABLE}")
        if began is None or not answer.startswith("# table:"):
            raise Unreachable(f"router worker {worker} in {self._folder} answers {answer[:200]!r}")
        return f"{worker}@{began}", answer

    async def read_leaving(self, worker: int) -> Worker | None:
        """The same of a worker that makes room; None once it has ended."""
        try:
            return await self.read(worker, _LEAVING_TIMEOUT_S)
        except Unreachable:
            return None

    async def run(self, worker: int, commands: Sequence[str]) -> None:
        """Run commands in order. What one of them could not do, the next comparison finds again."""
        for command in commands:
            await self.ask(f"@!{worker} {command}")

    async def reload(self) -> None:
        """Start a worker on the files as they are now; the old one goes on until its connections end.

        Raises ``Unreachable`` with HAProxy's own words if it refused; then the old worker stays as it was.
        """
        answer = await self.ask("reload", _RELOAD_TIMEOUT_S)
        if not answer.startswith("Success=1"):
            raise Unreachable(f"router in {self._folder} did not take its new configuration: {answer.strip()}")
        # Until the old worker has stopped listening, it may still accept a client that asks for something new.
        for worker in (await self.workers())[1:]:
            with contextlib.suppress(Unreachable):
                while (await self._info(worker, _LEAVING_TIMEOUT_S)).get("Stopping") == "0":
                    await asyncio.sleep(_STOPPING_POLL_S)

    async def _info(self, worker: int, timeout_s: float = _TIMEOUT_S) -> dict[str, str]:
        lines = (await self.ask(f"@!{worker} show info", timeout_s)).splitlines()
        return {name: value for name, _, value in (line.partition(": ") for line in lines)}

    async def ask(self, command: str, timeout_s: float = _TIMEOUT_S) -> str:
        """One command's answer."""
        try:
            async with asyncio.timeout(timeout_s):
                with address(self._folder, SOCKET) as path:
                    reader, writer = await asyncio.open_unix_connection(path)
                try:
                    writer.write(f"{command}\n".encode())
                    writer.write_eof()
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise Unreachable(
                f"router in {self._folder} does not answer `{command}`: {error!r}; it is tried again"
            ) from error


@contextlib.contextmanager
def address(folder: Path, name: str) -> Iterator[str]:
    """What to call the Unix socket ``name`` in ``folder``, whose own path may be too long for an address."""
    path = str(folder / name)
    if len(path.encode()) <= _PATH_BYTES:
        yield path
        return
    there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{there}/{name}"
    finally:
        os.close(there)
