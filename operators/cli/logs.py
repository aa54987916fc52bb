"""Log files as one stream, as ``tail`` gives it: the name of a file wherever the stream comes to another one."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence

POLL_S = 0.2
_PIECE = 64 * 1024


async def stream(files: Callable[[], Sequence[pathlib.Path]], follow: bool) -> AsyncIterator[bytes]:
    """What is in ``files``; with ``follow`` also what is added to them and to files that come later."""
    read: dict[pathlib.Path, int] = {}
    last: pathlib.Path | None = None
    while True:
        for file in files():
            async for piece in _rest(file, read):
                if file != last:
                    last = file
                    yield f"==> {file.name} <==\n".encode()
                yield piece
        if not follow:
            return
        await asyncio.sleep(POLL_S)


async def _rest(file: pathlib.Path, read: dict[pathlib.Path, int]) -> AsyncIterator[bytes]:
    # A file that is gone by now has nothing more to say.
    with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:
        size = opened.seek(0, 2)
        # One that became shorter was begun anew.
        position = read.get(file, 0) if read.get(file, 0) <= size else 0
        opened.seek(position)
        while piece := opened.read(_PIECE):
            read[file] = opened.tell()
            yield piece
