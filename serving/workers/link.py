"""Two processes that call each other over one Unix socket: the supervisor of a server and each of its workers.

Either side calls, either side answers; a line of JSON each way. Writing never blocks, so neither side can hold up
the other. When the other side has gone, what was asked of it ends with ``Gone``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from serving import errors
from serving.errors import NotReady, ServingError

_log = logging.getLogger(__name__)
_LINE_BYTES = 256 * 2**20
"""More than the figures of all models that can be counted by name."""

Handler = Callable[..., Awaitable[Any]]


class Gone(NotReady):
    """The other side has ended before it answered."""


class Link:
    """One side; ``handlers`` are the calls it takes, by name."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._ended = False

    async def run(self, sock: socket.socket) -> None:
        """Answers and takes answers until the other side has gone."""
        reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES)
        self._open.set()
        try:
            while line := await reader.readline():
                message = orjson.loads(line)
                if "call" in message:
                    task = asyncio.ensure_future(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                else:
                    self._settle(message)
        except ConnectionError as error:
            _log.debug("the other side of a link has gone: %s", error)
        finally:
            self._ended = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Gone("the process that was asked has ended"))
            self._writer.close()

    async def call(self, verb: str, /, **arguments: Any) -> Any:
        """What the other side's handler returns; the ServingError it raises, or Gone."""
        await self._open.wait()
        if self._ended:
            raise Gone("the process that was asked has ended")
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"number": number, "call": verb, "arguments": arguments})
        try:
            return await waiting
        finally:
            del self._waiting[number]

    async def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"number": message["number"]}
        try:
            answer["answer"] = await self._handlers[message["call"]](**message["arguments"])
        except ServingError as error:
            answer["error"] = [type(error).__name__, str(error)]
        except Exception as error:
            _log.exception("a call of '%s' between processes failed", message["call"])
            answer["error"] = [ServingError.__name__, f"{message['call']} failed: {type(error).__name__}: {error}"]
        self._send(answer)

    def _send(self, message: dict[str, Any]) -> None:
        if not self._ended:
            self._writer.write(orjson.dumps(message) + b"\n")

    def _settle(self, message: dict[str, Any]) -> None:
        waiting = self._waiting.get(message["number"])
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(remade(*message["error"]))
        else:
            waiting.set_result(message["answer"])


def remade(kind: str, text: str) -> ServingError:
    """The error that the other side raised, with its status and exit code."""
    found = getattr(errors, kind, ServingError)
    error: ServingError = found.__new__(found)
    Exception.__init__(error, text)
    return error
