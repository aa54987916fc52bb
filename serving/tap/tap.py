"""Copies of requests for another revision, and what comes of them.

The router says of a request for whom a copy is. Once its answer is on its way it is put into a line, which is short in
number and in bytes: where there is no room the copy is dropped and counted, and nobody waits. One thread takes from the
line, sends the copy to the router, which leads it to that revision, compares the answers, and tells the router whether
they agree. It asks one thing at a time and waits ``TIMEOUT_S`` for each, so a revision that is dead, slow or wrong
costs this server a thread that sleeps.

Where the copies go is said when the server starts, never by a request. What a revision cannot help (that it is gone,
overloaded, or not reached in time) is no evidence about its answers: such a copy is lost. An error that is its own is.
"""

from __future__ import annotations

import base64
import binascii
import collections
import contextlib
import dataclasses
import datetime
import http.client
import logging
import queue
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from serving import contract
from serving.errors import ServingError
from serving.requests import Request, Response
from serving.tap import comparison, wire

_log = logging.getLogger(__name__)

MOST_COPIES = 64
MOST_BYTES = 64 * 2**20
TIMEOUT_S = 2.0
KEPT = 100
"""Differences, the last ones."""
_LARGEST_ANSWER = 64 * 2**20
_LOST = frozenset({404, 408, 429, 499, 502, 503, 504})
_LENGTH = "inference-header-content-length"


@dataclasses.dataclass(frozen=True)
class Told:
    """Where copies go, and why they are believed there."""

    host: str
    port: int
    namespace: str
    secret: str


class Copy(NamedTuple):
    """A request that was answered; see ``Tap.offer``."""

    said: bytes
    model: str
    request: Request
    answer: Response
    size: int


class Tap:
    """Takes copies on the event loop; everything else happens on a thread of its own, which begins with the first."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._line: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: http.client.HTTPConnection | None = None
        # Each is written by one thread alone: what was taken by the event loop's, the rest by the tap's.
        self._offered_bytes = self._done_bytes = 0
        self._dropped = 0
        self._counts = dict.fromkeys(("agreed", "disagreed", "lost"), 0)
        self._why_lost = ""
        self._differences: collections.deque[dict[str, Any]] = collections.deque(maxlen=KEPT)

    def offer(self, said: bytes, model: str, request: Request, answer: Response, size: int) -> None:
        """Takes a copy of a request that was answered, if there is room for it.

        ``said`` is the router's word for whom; ``size`` is about how many bytes it keeps from being freed.
        """
        copy = Copy(said, model, request, answer, size)
        if self._line.qsize() >= MOST_COPIES or self._offered_bytes - self._done_bytes + copy.size > MOST_BYTES:
            self._dropped += 1
            return
        self._offered_bytes += copy.size
        self._line.put(copy)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tap", daemon=True)
            self._thread.start()

    def document(self) -> dict[str, Any]:
        """What came of the copies so far, and the last differences, the newest first."""
        told = {"waiting": self._line.qsize(), "dropped": self._dropped, **self._counts, "lastLost": self._why_lost}
        return {**told, "differences": list(reversed(tuple(self._differences)))}

    def _work(self) -> None:
        while True:
            copy = self._line.get()
            try:
                self._compare(copy)
            except (OSError, http.client.HTTPException, ServingError, ValueError) as error:
                self._lose(f"{type(error).__name__}: {error}")
            except Exception as error:
                _log.exception("a copy of a request for model %s could not be compared", copy.model)
                self._lose(f"{type(error).__name__}: {error}")
            self._done_bytes += copy.size
            del copy

    def _compare(self, copy: Copy) -> None:
        revision, how = _whom(copy.said)
        body, length = wire.encode(copy.request, copy.answer)
        model = urllib.parse.quote(copy.model, safe="")
        path = f"/{self._told.namespace}/{model}/v2/models/{model}"
        headers = {contract.SHADOW_HEADER: revision, _LENGTH: str(length), "content-type": "application/octet-stream"}
        status, found, answer = self._asked(f"{path}/infer", body, headers)
        if status in _LOST:
            self._lose(f"revision {revision} answered {status}: {_text(answer)}")
            return
        theirs: list[dict[str, Any]] = []
        if status >= 400:
            difference = f"it answered {status}: {_text(answer)}"
        else:
            size = found.get(_LENGTH)
            outputs = wire.decode(answer, None if size is None else int(size))
            difference, theirs = comparison.difference(copy.answer.outputs, outputs, how), comparison.told(outputs)
        said = orjson.dumps({"revision": revision, "agrees": not difference})
        status, _, answer = self._asked(f"{path}{contract.FEEDBACK_SUFFIX}", said, {"content-type": "application/json"})
        if status != 204:
            self._lose(f"the router answered {status} to feedback: {_text(answer)}")
            return
        self._counts["disagreed" if difference else "agreed"] += 1
        if difference:
            self._differences.append(
                {
                    "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                    "id": copy.request.id,
                    "model": copy.model,
                    "revision": revision,
                    "difference": difference,
                    "ours": comparison.told(copy.answer.outputs),
                    "theirs": theirs,
                }
            )

    def _asked(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers by lower-case name, and body of what the router answers."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._told.host, self._told.port, timeout=TIMEOUT_S)
        try:
            self._connection.request("POST", path, body, {**headers, contract.TAP_HEADER: self._told.secret})
            answer = self._connection.getresponse()
            found = answer.read(_LARGEST_ANSWER + 1)
            if len(found) > _LARGEST_ANSWER:
                raise ValueError(f"the answer has more than {_LARGEST_ANSWER} bytes")
        except BaseException:
            self._connection.close()
            self._connection = None
            raise
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, found

    def _lose(self, why: str) -> None:
        self._counts["lost"] += 1
        self._why_lost = why


def _whom(said: bytes) -> tuple[str, comparison.How]:
    """For whom a copy is, and how answers are compared; ValueError where the header says nothing of the kind."""
    with contextlib.suppress(binascii.Error, orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        document = orjson.loads(base64.urlsafe_b64decode(said))
        compare = document["compare"]
        revision = document["revision"]
        if isinstance(revision, str) and revision.isalnum():
            return revision, comparison.How.of(compare, compare.get("tolerance"))
    raise ValueError(f"the header {contract.MIRROR_HEADER} is {said[:60]!r}, which no router says")


def _text(answer: bytes) -> str:
    return answer[:200].decode(errors="replace")
