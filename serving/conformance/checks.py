"""The list of checks, and what comes of one."""

from __future__ import annotations

import dataclasses
import enum
import importlib
from collections.abc import Callable, Iterator
from typing import NoReturn

import grpc
import httpx

from serving.conformance.target import Target
from serving.errors import ServingError

AREAS = ("rest", "rpc", "mistakes", "together", "watched", "closed")
"""Modules with checks, in the order in which they run."""


class State(enum.StrEnum):
    """What came of a check."""

    YES = "yes"
    NO = "no"
    NOT_ASKED = "n/a"
    """The model, or what was said of the server, leaves nothing to ask."""


class _Missing(Exception):
    """The server cannot do it; the message says what it did instead."""


class _NotAsked(Exception):
    """It cannot be asked; the message says why."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that a server can do or cannot."""

    name: str
    area: str
    says: str
    """What a server does that passes, as the end of "it …"."""
    needed: bool
    """Whether Penstock cannot use a server without it."""
    run: Callable[[Target], None]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of one check."""

    check: Check
    state: State
    why: str = ""


_checks: list[Check] = []


def check(says: str, *, needed: bool = False) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Adds a function to the list, which returns where the server can, and else calls ``require`` or ``not_asked``."""

    def added(run: Callable[[Target], None]) -> Callable[[Target], None]:
        area = run.__module__.rpartition(".")[2]
        _checks.append(Check(f"{area}.{run.__name__}", area, says, needed, run))
        return run

    return added


def require(holds: object, why: str) -> None:
    """Ends a check that is not passed."""
    if not holds:
        raise _Missing(why)


def not_asked(why: str) -> NoReturn:
    """Ends a check that has nothing to ask."""
    raise _NotAsked(why)


def all_checks() -> tuple[Check, ...]:
    """Every check, in order."""
    for area in AREAS:
        importlib.import_module(f"serving.conformance.{area}")
    return tuple(sorted(_checks, key=lambda one: AREAS.index(one.area)))


def findings(target: Target) -> Iterator[Finding]:
    """Runs every check, one after the other."""
    for one in all_checks():
        try:
            one.run(target)
        except _NotAsked as reason:
            yield Finding(one, State.NOT_ASKED, str(reason))
        except _Missing as reason:
            yield Finding(one, State.NO, str(reason))
        except grpc.RpcError as error:
            yield Finding(one, State.NO, f"gRPC answered {error.code().name}: {error.details()}"[:300])
        except (httpx.HTTPError, OSError) as error:
            yield Finding(one, State.NO, f"the connection failed: {type(error).__name__} {error}"[:300])
        except (ServingError, LookupError, TypeError, ValueError) as error:
            yield Finding(one, State.NO, f"its answer cannot be read: {type(error).__name__} {error}"[:300])
        else:
            yield Finding(one, State.YES)
