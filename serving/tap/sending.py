"""Requests to routers, from one thread: what each says, over connections that are kept for a while."""

from __future__ import annotations

import http.client
import ipaddress
import time
from collections.abc import Mapping
from typing import NamedTuple

TIMEOUT_S = 2.0
LARGEST_ANSWER = 64 * 2**20
_KEPT_S = 10.0
"""Shorter than the router keeps them, so that no copy meets a connection that is being closed."""
_MOST = 8
"""Connections: one for each replica of the router, in a usual cluster."""


class Answered(NamedTuple):
    """What came back; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Sender:
    """POSTs, one at a time."""

    def __init__(self) -> None:
        self._connections: dict[str, tuple[http.client.HTTPConnection, float]] = {}

    def post(self, address: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answered:
        """The answer of ``address``, which is ``IP:PORT``, within ``TIMEOUT_S`` for each wait.

        Raises ``ValueError`` for another form of address and for an answer that is too large; ``OSError`` and
        ``http.client.HTTPException`` where there is none.
        """
        connection, used = self._connections.pop(address, (None, 0.0))
        if connection is not None and time.monotonic() - used > _KEPT_S:
            connection.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection(*_parsed(address), timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            found = answer.read(LARGEST_ANSWER + 1)
            if len(found) > LARGEST_ANSWER:
                raise ValueError(f"the answer has more than {LARGEST_ANSWER} bytes")
        except BaseException:
            connection.close()
            raise
        self._connections[address] = connection, time.monotonic()
        if len(self._connections) > _MOST:
            oldest = next(iter(self._connections))
            self._connections.pop(oldest)[0].close()
        return Answered(answer.status, {name.lower(): value for name, value in answer.getheaders()}, found)

    def close(self) -> None:
        """Closes what is kept."""
        for connection, _ in self._connections.values():
            connection.close()
        self._connections.clear()


def _parsed(address: str) -> tuple[str, int]:
    """Host and port. No names: what a router says of itself is where it is, and nothing is looked up for it."""
    host, _, port = address.rpartition(":")
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        found = None
    if found is None or found.is_link_local or found.is_multicast or not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"copies cannot be sent to {address[:60]!r}: that is no address IP:PORT of a router")
    return str(found), int(port)
