"""``penstock up`` as its own process, on a data directory and ports of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from operators.cli import datadir, kinds
from operators.cli.client import LocalClient
from serving.contract import Env
from tests.rig import ports

DEADLINE_S = 60.0


@dataclasses.dataclass
class Local:
    """A data directory, ports, and what a person types."""

    folder: pathlib.Path
    port: int
    grpc_port: int
    processes: list[subprocess.Popen[str]] = dataclasses.field(default_factory=list)

    @property
    def data(self) -> pathlib.Path:
        return self.folder / "data"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "operators.cli.main", *arguments, "--data-dir", str(self.data)]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of ``penstock`` with these arguments."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=DEADLINE_S)
        return done.returncode, done.stdout, done.stderr

    def up(self, *files: str) -> subprocess.Popen[str]:
        """Start ``penstock up`` and wait until it can be spoken to."""
        ports = ["--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        with (self.folder / "up.out").open("a") as output:
            process = subprocess.Popen(self.command("up", *files, *ports), stdout=output, stderr=output, text=True)
        self.processes.append(process)
        self.until("up answers", lambda: process.poll() is not None or self.is_announced(process))
        assert process.poll() is None, self.output()
        return process

    def is_announced(self, process: subprocess.Popen[str]) -> bool:
        running = datadir.running(self.data)
        return running is not None and running.pid == process.pid

    def output(self) -> str:
        return (self.folder / "up.out").read_text()

    def model(self, name: str) -> dict[str, Any]:
        running = datadir.running(self.data)
        assert running is not None
        return LocalClient(running).get(kinds.of("Model"), "default", name)

    def condition(self, type_: str, name: str) -> dict[str, Any]:
        conditions = self.model(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), {"status": "", "reason": ""})

    def serving(self, name: str) -> str:
        """The revision that serves, once the present generation of the Model does."""

        def settled() -> bool:
            found = self.model(name)
            status = found.get("status", {})
            ready = {c["type"]: c["status"] for c in status.get("conditions", [])}
            current: bool = status.get("observedGeneration") == found["metadata"]["generation"]
            return current and ready.get("Ready") == "True" and ready.get("RolloutComplete") == "True"

        self.until(f"{name} serves its present generation", settled)
        revision: str = self.model(name)["status"]["revision"]
        return revision

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while not holds():
            pause.wait(0.02)
            assert time.monotonic() < end, f"{what}: not so after {DEADLINE_S} s\n{self.output()}{self.log()}"

    def log(self) -> str:
        file = self.data / "up.log"
        return file.read_text()[-6000:] if file.exists() else ""

    def servers(self, model: str) -> list[psutil.Process]:
        """The processes that serve ``model`` in the namespace ``default``."""
        found = []
        for pid in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                of = process.environ()
                if (of.get(Env.MODEL), "serve" in process.cmdline()) == (model, True):
                    found.append(process)
        return found

    def children(self) -> set[int]:
        """Processes that work for this data directory, ``up`` itself left out."""
        found = set()
        for process in psutil.process_iter(["pid", "cmdline", "environ", "status"]):
            words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
            mine = {p.pid for p in self.processes} | {os.getpid()}
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and process.pid not in mine and any(str(self.data) in word for word in words):
                found.add(process.pid)
        return found


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Local]:
    """Local mode in ``folder``; whatever is left running at the end is ended."""
    port, grpc_port = ports.free(2)
    made = Local(folder, port, grpc_port)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.terminate()
            process.wait(DEADLINE_S)
    code, _, error = made("down")
    assert code == 0, error
    made.until("no child is left", lambda: not made.children())
