"""Ports of loopback that nobody listens on."""

from __future__ import annotations

import contextlib
import random
import socket

_RANGE = 10_000, 30_000
"""Below the ephemeral ports of Linux (32768 up) and the node ports of Kubernetes (30000 up)."""


def free(count: int) -> list[int]:
    """So many different ones; taken by nobody at this moment.

    They are none of those that the kernel gives to outgoing connections, which would take one before it is listened on.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.SystemRandom().randrange(*_RANGE)
            with contextlib.suppress(OSError):  # somebody listens there
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    return found
