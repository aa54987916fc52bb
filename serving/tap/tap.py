"""Copies of requests for others, and what comes of them.

The router says of a request for whom a copy is. Once its answer is on its way it is put into a line, one for each of
those who get copies, which is short in number and in bytes: where there is no room the copy is dropped and counted, and
nobody waits. A thread for each line sends the copy back to the router, which leads it there, compares the answers, and
tells the router whether they agree. It asks one thing at a time and waits ``sending.TIMEOUT_S`` for each, so whoever is
dead, slow or wrong costs this server a thread that sleeps, and the others nothing.

Whom a copy is for and where it goes is the router's word, and so is the token for which it is believed there. What they
cannot help (that they are gone, overloaded, or not reached in time) is no evidence about their answers: such a copy is
lost. An error that is their own is.
"""

from __future__ import annotations

import base64
import binascii
import collections
import contextlib
import datetime
import http.client
import logging
import queue
import threading
import urllib.parse
from typing import Any, NamedTuple

import orjson

from serving import contract
from serving.errors import ServingError
from serving.requests import Request, Response
from serving.tap import comparison, wire
from serving.tap.sending import Sender

_log = logging.getLogger(__name__)

MOST_LINES = 16
MOST_COPIES = 64
"""In one line."""
MOST_BYTES = 64 * 2**20
"""In all lines; one gets at most half of what the others leave, so that none keeps all the room."""
KEPT = 100
"""Differences, the last ones."""
_IDLE_S = 60.0
"""A line to which nothing came for so long ends with its thread."""
_LOST = frozenset({403, 404, 408, 429, 499, 502, 503, 504})
_LENGTH = "inference-header-content-length"


class Copy(NamedTuple):
    """A request that was answered; see ``Tap.offer``."""

    told: Told
    model: str
    request: Request
    answer: Response
    size: int


class Told(NamedTuple):
    """What the router says of a copy."""

    address: str
    what: bytes
    """For whom, and how answers are compared."""
    token: str

    @classmethod
    def of(cls, header: bytes) -> Told | None:
        """None where it is nothing that a router says."""
        parts = header.decode("latin-1").split("|", 2)
        return cls(parts[0], parts[1].encode("latin-1"), parts[2]) if len(parts) == 3 and header.isascii() else None


class Whom(NamedTuple):
    """Who gets a copy: a revision of the same model, or another model."""

    revision: str
    model: str
    how: comparison.How

    @classmethod
    def of(cls, what: bytes) -> Whom:
        """From the router's JSON; ``ValueError`` where it is nothing of the kind."""
        with contextlib.suppress(binascii.Error, orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            document = orjson.loads(base64.urlsafe_b64decode(what))
            compare = document["compare"]
            revision, model = document.get("revision", ""), document.get("model", "")
            if isinstance(revision, str) and isinstance(model, str) and (revision or model):
                return cls(revision, model, comparison.How.of(compare))
        raise ValueError(f"the header {contract.MIRROR_HEADER} says {what[:60]!r}, which no router does")

    def __str__(self) -> str:
        return f"revision {self.revision}" if self.revision else f"model {self.model}"


class _Line:
    """Copies that wait for one thread."""

    def __init__(self) -> None:
        self.copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self.waiting = self.bytes = 0
        """What is in work included; written with the tap's lock held."""


class Tap:
    """Takes copies on the event loop; everything else happens on threads, which begin with the first copy of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[bytes, _Line] = {}
        self._dropped = 0
        self._counts = dict.fromkeys(("agreed", "disagreed", "lost"), 0)
        self._why_lost = ""
        self._differences: collections.deque[dict[str, Any]] = collections.deque(maxlen=KEPT)

    def offer(self, header: bytes, model: str, request: Request, answer: Response, size: int) -> None:
        """Takes a copy of a request that was answered, if there is room for it.

        ``header`` is the router's word; ``size`` is about how many bytes the copy keeps from being freed.
        """
        told = Told.of(header)
        if told is None:
            self._lose(f"the header {contract.MIRROR_HEADER} is {header[:60]!r}, which no router says")
            return
        with self._lock:
            line = self._lines.get(told.what)
            others = sum(other.bytes for other in self._lines.values() if other is not line)
            is_full = line is None and len(self._lines) >= MOST_LINES
            waiting, held = (line.waiting, line.bytes) if line else (0, 0)
            if is_full or waiting >= MOST_COPIES or held + size > (MOST_BYTES - others) // 2:
                self._dropped += 1
                return
            if line is None:
                line = self._lines[told.what] = _Line()
                threading.Thread(target=self._work, args=(told.what, line), name="tap", daemon=True).start()
            line.waiting += 1
            line.bytes += size
            line.copies.put(Copy(told, model, request, answer, size))

    def document(self) -> dict[str, Any]:
        """What came of the copies so far, and the last differences, the newest first."""
        with self._lock:
            waiting = sum(line.waiting for line in self._lines.values())
            told = {"waiting": waiting, "dropped": self._dropped, **self._counts, "lastLost": self._why_lost}
            return {**told, "differences": list(reversed(self._differences))}

    def _work(self, what: bytes, line: _Line) -> None:
        sender = Sender()
        while True:
            try:
                copy = line.copies.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if line.waiting:
                        continue
                    del self._lines[what]
                sender.close()
                return
            try:
                self._compare(copy, sender)
            except (OSError, http.client.HTTPException, ServingError, ValueError) as error:
                self._lose(f"{type(error).__name__}: {error}")
            except Exception as error:
                _log.exception("a copy of a request for model %s could not be compared", copy.model)
                self._lose(f"{type(error).__name__}: {error}")
            with self._lock:
                line.waiting -= 1
                line.bytes -= copy.size
            del copy

    def _compare(self, copy: Copy, sender: Sender) -> None:
        whom, told = Whom.of(copy.told.what), copy.told
        body, length = wire.encode(copy.request, copy.answer)
        path = f"/v2/models/{urllib.parse.quote(whom.model or copy.model, safe='')}/infer"
        token = {contract.MIRROR_HEADER: told.token}
        headers = {**token, _LENGTH: str(length), "content-type": "application/octet-stream"}
        status, found, answer = sender.post(told.address, path, body, headers)
        if status in _LOST:
            self._lose(f"{whom} answered {status}: {_text(answer)}")
            return
        theirs: list[dict[str, Any]] = []
        if status >= 400:
            difference = f"it answered {status}: {_text(answer)}"
        else:
            size = found.get(_LENGTH)
            outputs = wire.decode(answer, None if size is None else int(size))
            difference = comparison.difference(copy.answer.outputs, outputs, whom.how)
            theirs = comparison.told(outputs)
        path = contract.DISAGREED_PATH if difference else contract.AGREED_PATH
        status, _, answer = sender.post(told.address, path, b"", token)
        if status != 204:
            self._lose(f"the router answered {status} to {path}: {_text(answer)}")
            return
        with self._lock:
            self._counts["disagreed" if difference else "agreed"] += 1
            if difference:
                self._differences.append(
                    {
                        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                        "id": copy.request.id,
                        "model": copy.model,
                        "revision": whom.revision,
                        "shadow": whom.model,
                        "difference": difference,
                        "ours": comparison.told(copy.answer.outputs),
                        "theirs": theirs,
                    }
                )

    def _lose(self, why: str) -> None:
        with self._lock:
            self._counts["lost"] += 1
            self._why_lost = why


def _text(answer: bytes) -> str:
    return answer[:200].decode(errors="replace")
