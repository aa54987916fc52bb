"""Process trees on one processor: started, watched and ended; and what the machine did beside them."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVER_CPU, CLIENT_CPU = 0, 1
_END_S = 10.0
_PORTS = 10_000, 30_000
"""Below the ephemeral ports of Linux (32768 up) and the node ports of Kubernetes (30000 up)."""


class Tree:
    """A process with all it started."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._root = psutil.Process(popen.pid)
        self._popen = popen

    def members(self) -> list[psutil.Process]:
        """Those that live."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.alive:
                return [self._root, *self._root.children(recursive=True)]
        return []

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def cpu_s(self) -> float:
        """Processor time that all of them have used so far."""
        return sum(self._of(member) for member in self.members())

    def pss_mib(self) -> float:
        """Memory of all of them, what they share counted once."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
        return total / 2**20

    def uss_mib(self) -> float:
        """Memory that is theirs alone: what comes and goes in other processes does not change it."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().uss
        return total / 2**20

    def file_descriptors(self) -> int:
        """Open in all of them."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.num_fds()
        return total

    def follow(self) -> None:
        """Put what has made sessions of its own into the priority that this process has; see ``niced``."""
        for member in self.members():
            _follow(member.pid, os.getpriority(os.PRIO_PROCESS, 0))

    def end(self) -> None:
        """Ask it to end, and kill what is left after ten seconds."""
        members = self.members()
        if self.alive:
            self._popen.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(members, timeout=_END_S)
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        with contextlib.suppress(ProcessLookupError):  # children of a process that ended by itself
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    @staticmethod
    def _of(member: psutil.Process) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            return float(times.user + times.system)
        return 0.0


def start(command: Sequence[str], folder: Path, environment: Mapping[str, str], cpu: int | None) -> Tree:
    """``command`` in ``folder``, on ``cpu`` alone unless that is None; its output goes to ``output.log`` there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("ab") as output:
        popen = subprocess.Popen(
            [*pinned(cpu), *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _follow(popen.pid, os.getpriority(os.PRIO_PROCESS, 0))
    return Tree(popen)


@contextlib.contextmanager
def niced(nice: int) -> Iterator[None]:
    """Another priority for this process, its session and what it starts; below 0 needs root.

    Linux puts sessions into groups and shares the processor between groups, whatever the priority of a process in
    one. So that of the group is set too, and set back.
    """
    os.nice(nice)
    _follow(os.getpid(), nice)
    try:
        yield
    finally:
        _follow(os.getpid(), 0)


def _follow(pid: int, nice: int) -> None:
    group = Path(f"/proc/{pid}/autogroup")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # not this kernel, or it has ended
        group.write_text(str(nice))


def pinned(cpu: int | None) -> Sequence[str]:
    """What stands before a command that may use one processor."""
    return () if cpu is None else ("taskset", "--cpu-list", str(cpu))


def free_ports(count: int) -> list[int]:
    """So many different ones; taken by nobody at this moment.

    They are none of those that the kernel gives to outgoing connections, which would take one before it is listened on.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.SystemRandom().randrange(*_PORTS)
            with contextlib.suppress(OSError):  # somebody listens there
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    return found


def cpu_s(trees: Iterable[Tree]) -> float:
    """Processor time of several trees so far."""
    return sum(tree.cpu_s() for tree in trees)


@dataclass(frozen=True)
class Clocks:
    """Processor time used so far, in seconds, and the time of day."""

    at_s: float
    machine_s: float
    servers_s: float
    ended_s: float
    """Of children that have ended: generators."""
    own_s: float

    @classmethod
    def now(cls, servers: Iterable[Tree]) -> Clocks:
        """What all clocks show."""
        machine, ended = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(
            time.monotonic(),
            float(sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice),
            cpu_s(servers),
            ended.ru_utime + ended.ru_stime,
            time.process_time(),
        )

    def foreign(self, before: Clocks) -> float:
        """Processors that were used by nobody of us since ``before``."""
        ours = self.servers_s + self.ended_s + self.own_s - before.servers_s - before.ended_s - before.own_s
        return max(0.0, (self.machine_s - before.machine_s - ours) / (self.at_s - before.at_s))
