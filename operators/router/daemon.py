"""A process that outlives whoever started it, and is found again by the next.

A record on disk names the process by id and start time, so an id that was given to another process is never taken
for ours. Whether it lives is asked, not awaited: only a parent can await, and after a crash nobody is its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

POLL_S = 0.1
_LOG_BYTES = 10 * 2**20


@dataclasses.dataclass
class Daemon:
    """One running process with its record."""

    process: psutil.Process
    record: Path
    notes: Mapping[str, Any]
    """What whoever started it wants to know when it is found again."""
    popen: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is None
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and for a process that somebody else started."""
        return None if self.popen is None else self.popen.poll()

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            try:
                self.process.send_signal(number)
            except psutil.NoSuchProcess:
                return

    async def end(self, timeout_s: float, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end with ``number``, kill it after ``timeout_s``, and forget it."""
        self.send(number)
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.alive:
            if asyncio.get_running_loop().time() > deadline:
                self.send(signal.SIGKILL)
            await asyncio.sleep(POLL_S / 2)
        self.forget()

    def forget(self) -> None:
        self.record.unlink(missing_ok=True)


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    record: Path,
    notes: Mapping[str, Any],
) -> Daemon:
    """Start ``command`` in ``folder``, in a session of its own, its output appended to ``log``.

    Raises ``OSError`` if it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        popen = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = psutil.Process(popen.pid)
    write(record, json.dumps({"pid": popen.pid, "born": _born(process), "notes": notes}))
    return Daemon(process, record, notes, popen)


def adopt(record: Path) -> Daemon | None:
    """The process of a record, if it still runs; a record whose process is gone is deleted."""
    # A record that cannot be read names no process, as one whose process has gone.
    with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
        found = json.loads(record.read_text())
        process = psutil.Process(found["pid"])
        daemon = Daemon(process, record, found["notes"])
        if _born(process) == found["born"] and daemon.alive:
            return daemon
    record.unlink(missing_ok=True)
    return None


def _born(process: psutil.Process) -> float:
    # Seconds since the machine started: the same whatever happens to the wall clock in between.
    return round(process.create_time() - psutil.boot_time(), 1)


def write(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace a file at once: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.touch(mode)
    new.write_text(text)
    new.replace(path)
