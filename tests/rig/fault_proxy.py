"""A reverse proxy in front of an API server that misbehaves as a test tells it to.

Rules act on requests to come: the first rule that matches one decides what happens to it. ``streams`` are the
watches under way, to be frozen, cut or written into. Every request is kept in ``requests`` with the code that
its client saw. Plain HTTP towards the client, TLS towards the API server; headers pass unchanged.

A rule's effect is a coroutine over an ``Exchange``, so a test can do anything at any point of a request::

    proxy.add(Rule(lists("configmaps"), answer(503)))                  # until the rule is removed
    proxy.add(Rule(watches("configmaps"), answer(410), times=1))

    async def lose_the_reply(exchange: Exchange) -> None:              # committed, but nobody hears of it
        await exchange.upstream()
        exchange.abort()
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

HOP_BY_HOP = {"connection", "host", "keep-alive", "transfer-encoding", "content-length"}


@dataclasses.dataclass
class Request:
    """What was asked; ``status`` is 0 while there is no answer, and stays 0 where the connection was cut."""

    verb: str
    path: str
    watch: bool
    token: str
    at: float
    """By the clock of the event loop."""
    status: int = 0


class Stream:
    """A watch under way, passed on line by line."""

    def __init__(self, request: Request, client: web.StreamResponse, abort: Callable[[], None]) -> None:
        self.request = request
        self._client = client
        self._abort = abort
        self.frozen = False
        self._cut_within_next = False

    def freeze(self) -> None:
        """Keep the connection open and pass nothing on any more."""
        self.frozen = True

    async def inject(self, line: bytes) -> None:
        """Send a line of our own to the client."""
        await self._client.write(line.rstrip(b"\n") + b"\n")

    def cut(self) -> None:
        """Break the connection now."""
        self._abort()

    def cut_within_next(self) -> None:
        """Break the connection in the middle of the next event."""
        self._cut_within_next = True

    async def pass_on(self, line: bytes) -> None:
        if self.frozen:
            return
        if self._cut_within_next:
            await self._client.write(line[: len(line) // 2])
            self._abort()
            return
        await self._client.write(line)


class Exchange:
    """One request and what is to become of it."""

    def __init__(self, proxy: FaultProxy, request: Request, incoming: web.Request, body: bytes) -> None:
        self.request = request
        self._proxy = proxy
        self._incoming = incoming
        self._body = body
        self.incoming_headers = dict(incoming.headers)
        """What is passed on; an effect may change it."""
        self.response: web.StreamResponse | None = None

    @contextlib.asynccontextmanager
    async def _sent(self) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {k: v for k, v in self.incoming_headers.items() if k.lower() not in HOP_BY_HOP}
        target = URL(self._proxy.target + self._incoming.raw_path, encoded=True)
        async with self._proxy.session.request(
            self._incoming.method, target, headers=headers, data=self._body, ssl=self._proxy.tls
        ) as response:
            yield response

    async def upstream(self) -> web.Response:
        """Have the API server answer, and give the answer without passing it on."""
        async with self._sent() as response:
            headers = {k: v for k, v in response.headers.items() if k.lower() not in HOP_BY_HOP}
            return web.Response(status=response.status, headers=headers, body=await response.read())

    async def forward(self, *, frozen: bool = False) -> None:
        """What happens without a rule; ``frozen`` opens a watch that stays silent."""
        if self.request.watch:
            await self._stream(frozen)
        else:
            self.response = await self.upstream()

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer instead of the API server."""
        self.response = web.Response(status=status, body=body, headers=headers)

    def abort(self) -> None:
        """Break the client's connection."""
        if self._incoming.transport is not None:
            self._incoming.transport.abort()

    async def _stream(self, frozen: bool) -> None:
        async with self._sent() as response:
            headers = {k: v for k, v in response.headers.items() if k.lower() not in HOP_BY_HOP}
            client = web.StreamResponse(status=response.status, headers=headers)
            self.response = client
            self.request.status = response.status
            await client.prepare(self._incoming)
            stream = Stream(self.request, client, self.abort)
            if frozen:
                stream.freeze()
            self._proxy.streams.append(stream)
            try:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        await stream.pass_on(line + b"\n")
                if stream.frozen:
                    await asyncio.Event().wait()
                await client.write_eof(rest)
            finally:
                self._proxy.streams.remove(stream)


Match = Callable[[Request], bool]
Effect = Callable[[Exchange], Awaitable[None]]


@dataclasses.dataclass
class Rule:
    """``times`` None: for as long as it is there."""

    match: Match
    effect: Effect
    times: int | None = None


def lists(plural: str) -> Match:
    """LIST requests of a resource."""
    return lambda request: request.verb == "GET" and not request.watch and request.path.endswith(f"/{plural}")


def watches(plural: str) -> Match:
    """WATCH requests of a resource."""
    return lambda request: request.watch and request.path.endswith(f"/{plural}")


def writes(request: Request) -> bool:
    """Anything that changes something."""
    return request.verb != "GET"


def answer(status: int, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Effect:
    """Answer at once; without a body, with a ``Status`` as the API server would."""
    text = status_object(status) if body is None else body
    return lambda exchange: exchange.answer(status, text, {"Content-Type": "application/json", **(headers or {})})


def status_object(code: int, message: str = "made by the fault proxy") -> bytes:
    """A ``Status`` that says no."""
    return json.dumps(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    ).encode()


async def freeze(exchange: Exchange) -> None:
    """Let the watch open and stay silent."""
    await exchange.forward(frozen=True)


class FaultProxy:
    """Made by ``running``."""

    def __init__(self, target: str, tls: ssl.SSLContext, session: aiohttp.ClientSession) -> None:
        self.target = target
        self.tls = tls
        self.session = session
        self.url = ""
        self.requests: list[Request] = []
        self.streams: list[Stream] = []
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> Rule:
        """Have ``rule`` tried after those already there."""
        self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Let ``rule`` apply no more; one that has run out is gone already."""
        if rule in self._rules:
            self._rules.remove(rule)

    def count(self, match: Match) -> int:
        """Requests so far."""
        return sum(1 for request in self.requests if match(request))

    async def handle(self, incoming: web.Request) -> web.StreamResponse:
        token = incoming.headers.get("Authorization", "").partition(" ")[2]
        watch = incoming.query.get("watch", "") in ("true", "1")
        request = Request(incoming.method, incoming.path, watch, token, asyncio.get_running_loop().time())
        self.requests.append(request)
        exchange = Exchange(self, request, incoming, await incoming.read())
        for rule in self._rules:
            if rule.match(request):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
                await rule.effect(exchange)
                break
        else:
            await exchange.forward()
        if exchange.response is None:
            exchange.abort()
            return web.Response(status=502)
        request.status = exchange.response.status
        return exchange.response


@contextlib.asynccontextmanager
async def running(target: str, ca_file: Path) -> AsyncIterator[FaultProxy]:
    """A proxy to the API server at ``target`` on a free port of loopback."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        timeout=timeout, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        proxy = FaultProxy(target, ssl.create_default_context(cafile=ca_file), session)
        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield proxy
        finally:
            await runner.cleanup()
