"""What was decided, for whoever describes an object. A courtesy: nothing depends on it, and it may be lost."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable

from operators.actuators.kubernetes.resources import EVENTS
from operators.api.base import API_VERSION
from operators.api.plan import Event, Key
from operators.runtime import errors
from operators.runtime.connection import Connection
from operators.runtime.resource import Object

log = logging.getLogger(__name__)

_NOTE_LENGTH = 1000


@dataclasses.dataclass(frozen=True)
class Events:
    """Tells Events through ``connection``."""

    connection: Connection
    now: Callable[[], datetime.datetime]

    async def tell(self, key: Key, uid: str, told: Event) -> None:
        """Tell ``told`` of the object ``key`` with this ``uid``, unless it was told before."""
        try:
            await self.connection.create(EVENTS, event(key, uid, told, self.now()))
        except errors.Conflict:
            log.debug("event=%r key=%r told before", told.reason, str(key))
        except errors.ClusterError as error:
            log.warning("event=%r key=%r error=%r", told.reason, str(key), str(error))


def named(name: str) -> str:
    """``name`` as objects may be called."""
    return name.lower().replace(":", "-")


def event(key: Key, uid: str, told: Event, now: datetime.datetime) -> Object:
    """The object. Its name makes telling it twice a conflict."""
    note = told.note
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": named(told.name), "namespace": key.namespace},
        "eventTime": now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "penstock.dev/operator",
        "reportingInstance": "penstock-operator",
        "action": told.action,
        "reason": told.reason,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid,
        },
        "note": note if len(note) <= _NOTE_LENGTH else note[: _NOTE_LENGTH - 1] + "…",
        "type": "Warning" if told.is_warning else "Normal",
    }
