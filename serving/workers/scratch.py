"""A folder for as long as a server runs, that is removed also when nobody was left to remove it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)
_PREFIX = "penstock-shared-"


@contextlib.contextmanager
def folder(within: Path) -> Iterator[Path | None]:
    """A new folder that only this user reaches; None where there cannot be one.

    It is locked as long as this process or a child that it forked lives; folders that nobody locks any more, left by
    servers that were killed, are removed first.
    """
    for left in within.glob(f"{_PREFIX}*"):
        _remove(left)
    try:
        made, lock = _made(within)
    except OSError as error:
        _log.warning("%s takes no folder (%s), so workers share no weights", within, error.strerror)
        yield None
        return
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _made(within: Path) -> tuple[Path, int]:
    """A new folder and its lock. Another server that starts may have removed it before it was locked: then the next."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=within))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.fstat(lock).st_nlink:
                return made, lock
            os.close(lock)


def _remove(left: Path) -> None:
    try:
        if left.is_symlink() or left.stat().st_uid != os.getuid():
            return
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        _log.debug("%s is not ours to remove: %s", left, error)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        pass  # its server runs
    finally:
        os.close(lock)
