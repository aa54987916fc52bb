"""The data directory of ``penstock up``: who uses it, and how other commands find the one that does.

A lock of the operating system says whether it is in use, so a killed process leaves nothing that must be
judged; ``up.json`` says where the running one listens, readable by its owner alone, for it holds the token.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

from operators.api.errors import OperatorError


class InUse(OperatorError):
    """Another ``penstock up`` uses the data directory."""


@dataclasses.dataclass(frozen=True)
class Running:
    """A ``penstock up`` that runs, and where."""

    pid: int
    url: str
    """Its API."""
    token: str
    rest: str
    """The router's REST address."""
    grpc: str
    """The router's gRPC address, HOST:PORT."""


def default(environment: Mapping[str, str]) -> pathlib.Path:
    """``PENSTOCK_DATA_DIR``, or ``penstock`` among the user's state."""
    if given := environment.get("PENSTOCK_DATA_DIR"):
        return pathlib.Path(given).absolute()
    state = environment.get("XDG_STATE_HOME")
    return (pathlib.Path(state) if state else pathlib.Path.home() / ".local/state").absolute() / "penstock"


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keep the data directory for this process, making it where there is none.

    Raises:
        InUse: another process has it; the message says which.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise OperatorError(f"{folder}: {error.strerror}; name another with --data-dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise InUse(
                f"`penstock up` runs on {folder} already (process {lock.read().strip() or 'unknown'}); "
                "apply to it, end it with `penstock down`, or name another --data-dir"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def announce(folder: pathlib.Path, running: Running) -> None:
    """Tell other commands where this process listens."""
    temporary = folder / "up.json.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dataclasses.asdict(running), file)
    temporary.replace(folder / "up.json")


def withdraw(folder: pathlib.Path) -> None:
    """Tell other commands that nobody listens any more."""
    (folder / "up.json").unlink(missing_ok=True)


def records(folder: pathlib.Path) -> list[pathlib.Path]:
    """What names each process that works for this data directory: the router first, then its servers."""
    router = folder / "router" / "haproxy.json"
    return ([router] if router.exists() else []) + sorted((folder / "children").rglob("*.json"))


def left(folder: pathlib.Path) -> int:
    """How many processes there still are of those that a ``penstock up`` started; nothing is changed."""
    alive = 0
    for record in records(folder):
        # Good enough for advice: after a restart of the machine the id may be another's.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            os.kill(json.loads(record.read_text())["pid"], 0)
            alive += 1
    return alive


def running(folder: pathlib.Path) -> Running | None:
    """The ``penstock up`` that runs on this data directory, if there is one."""
    try:
        found = Running(**json.loads((folder / "up.json").read_text()))
        os.kill(found.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return found
