"""HAProxy's master socket: which processes there are, reload, and commands to each worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from operators.api.errors import Unreachable
from operators.router import workers
from operators.router.configuration import MAPS
from operators.router.workers import Worker

SOCKET = "master.sock"
_TIMEOUT_S = 5.0
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
        return [int(line.split()[0]) for line in (await self.ask("show proc")).splitlines() if " worker " in line]

    async def structure(self, worker: int) -> str:
        """What the worker's configuration file calls itself."""
        return (await self._info(worker)).get("description", "")

    async def read(self, worker: int) -> Worker:
        """All of a worker that we program."""
        maps = {file: workers.parse_map(await self.ask(f"@!{worker} show map {file}")) for file in MAPS}
        return Worker(maps, workers.parse_backends(await self.ask(f"@!{worker} show stat -1 6 -1")))

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
                while (await self._info(worker)).get("Stopping") == "0":
                    await asyncio.sleep(_STOPPING_POLL_S)

    async def _info(self, worker: int) -> dict[str, str]:
        lines = (await self.ask(f"@!{worker} show info")).splitlines()
        return {name: value for name, _, value in (line.partition(": ") for line in lines)}

    async def ask(self, command: str, timeout_s: float = _TIMEOUT_S) -> str:
        """One command's answer."""
        try:
            async with asyncio.timeout(timeout_s):
                with self._address() as address:
                    reader, writer = await asyncio.open_unix_connection(address)
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
    def _address(self) -> Iterator[str]:
        path = str(self._folder / SOCKET)
        if len(path.encode()) <= _PATH_BYTES:
            yield path
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{SOCKET}"
        finally:
            os.close(folder)
