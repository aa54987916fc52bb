"""Models known by name only: what the router's default backend says.

The router sends here what it has no server for. The names, states and reasons come from a JSON file
``[{"name", "version", "state", "reason"}]`` that somebody else writes (by rename) and that is read
again when it changes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from serving.errors import NotReady, UnknownModel, Unsupported
from serving.models.base import Entry, State, not_served
from serving.scheduling import ModelQueue

_log = logging.getLogger(__name__)


class Catalog:
    """Models listed in a file. A file that is missing or unreadable leaves what was read last."""

    computes = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._entries: tuple[Entry, ...] = ()

    async def start(self) -> None:
        """Reads the file."""
        self._refresh()

    def find(self, name: str, version: str) -> ModelQueue:
        """Never a queue: UnknownModel, or NotReady with the reason the file gives."""
        entries = [entry for entry in self._entries if entry.name == name]
        if not entries:
            raise not_served(name, {entry.name for entry in self._entries})
        wanted = [entry for entry in entries if version in ("", entry.version)]
        if not wanted:
            raise UnknownModel(name, f"has no version '{version}'")
        reason = next((entry.reason for entry in wanted if entry.reason), "no server of it answers now")
        raise NotReady(f"model '{name}' is not ready: {reason}")

    def index(self) -> Sequence[Entry]:
        """What the file lists."""
        return self._entries

    def is_ready(self) -> bool:
        """A catalog can always say what it knows."""
        return True

    def hung(self) -> str:
        """Nothing is computed here."""
        return ""

    async def load(self, name: str) -> None:
        """Models come and go by declaration here."""
        raise Unsupported(f"model '{name}' is managed by its declaration; change that instead of loading it")

    async def unload(self, name: str) -> None:
        """Models come and go by declaration here."""
        raise Unsupported(f"model '{name}' is managed by its declaration; delete that instead of unloading it")

    def tick(self, now: float) -> None:
        """Reads the file again if it changed."""
        self._refresh()

    def _refresh(self) -> None:
        try:
            found = os.stat(self._file)
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            document = orjson.loads(self._file.read_bytes())
            if not isinstance(document, list):
                raise TypeError("expected a list")
            self._entries = tuple(
                sorted(
                    (
                        Entry(
                            item["name"],
                            item.get("version", ""),
                            State(item.get("state", State.UNAVAILABLE)),
                            item.get("reason", ""),
                        )
                        for item in document
                    ),
                    key=lambda entry: (entry.name, entry.version),
                )
            )
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning(
                "%s was not read (%s: %s); what it said before still holds",
                self._file,
                type(error).__name__,
                error,
            )
