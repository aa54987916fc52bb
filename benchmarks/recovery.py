"""How long after a ``kill -9`` is the declared state back?

Starts ``penstock up`` on a folder of its own with the digits example, and in each round kills the model server, the
router and the supervisor (which is started again at once, as an init system would). Recovered means that the Model
is Ready, its rollout complete, and a request is answered.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import httpx
import numpy as np
import psutil

from benchmarks import origin

MODEL = pathlib.Path("examples/digits/plain.yaml")
REQUEST = pathlib.Path("examples/digits/seven.json")
PORT, GRPC_PORT = 18080, 19000
DEADLINE_S = 60.0


@dataclasses.dataclass
class Local:
    """One ``penstock up`` and what belongs to it."""

    folder: pathlib.Path
    process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Start it, or start it again after it was killed."""
        command = [sys.executable, "-m", "operators.cli.main", "up", str(MODEL), "--data-dir", str(self.folder)]
        ports = ["--port", str(PORT), "--grpc-port", str(GRPC_PORT)]
        self.process = subprocess.Popen([*command, *ports], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_declared(self) -> bool:
        """Whether this very process says that all is well, and a request is answered."""
        try:
            running = json.loads((self.folder / "up.json").read_text())
            url = f"{running['url']}/apis/penstock.dev/v1alpha1/namespaces/default/models/digits"
            model = httpx.get(url, headers={"authorization": f"Bearer {running['token']}"}).json()
            status = {c["type"]: c["status"] for c in model["status"]["conditions"]}
            answer = httpx.post(f"http://127.0.0.1:{PORT}/v2/models/digits/infer", content=REQUEST.read_bytes())
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            return False
        assert self.process is not None
        well = status.get("Ready") == status.get("RolloutComplete") == "True"
        return well and answer.status_code == 200 and running["pid"] == self.process.pid

    def server(self) -> list[psutil.Process]:
        """The model server."""
        return [p for p in self._own() if "serve" in p.cmdline()]

    def router(self) -> list[psutil.Process]:
        """HAProxy, master and workers."""
        return [p for p in self._own() if "haproxy" in p.name()]

    def supervisor(self) -> list[psutil.Process]:
        """``penstock up`` itself."""
        assert self.process is not None
        return [psutil.Process(self.process.pid)]

    def _own(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
            if any(str(self.folder) in word for word in words):
                found.append(process)
        return found


def waited_s(holds: Callable[[], bool], began: float) -> float:
    """Seconds since ``began`` when ``holds``; TimeoutError after a minute."""
    pause = threading.Event()
    while not holds():
        if time.monotonic() - began > DEADLINE_S:
            raise TimeoutError(f"not recovered after {DEADLINE_S:g} s")
        pause.wait(0.02)
    return time.monotonic() - began


def measure(folder: pathlib.Path, rounds: int) -> dict[str, list[float]]:
    """Recovery times in seconds by what was killed."""
    local = Local(folder)
    began = time.monotonic()
    local.up()
    taken: dict[str, list[float]] = {"first start": [waited_s(local.is_declared, began)]}
    try:
        for _ in range(rounds):
            for name, killed in (
                ("server", local.server),
                ("router", local.router),
                ("supervisor", local.supervisor),
            ):
                victims = killed()
                assert victims, f"no {name} runs"
                began = time.monotonic()
                for victim in victims:
                    victim.kill()
                if name == "supervisor":
                    assert local.process is not None
                    local.process.wait()
                    local.up()
                taken.setdefault(name, []).append(waited_s(local.is_declared, began))
    finally:
        assert local.process is not None
        local.process.terminate()
        local.process.wait(DEADLINE_S)
    return taken


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--raw", type=pathlib.Path, default=pathlib.Path("build/recovery.json"))


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="penstock-recovery-") as folder:
        taken = measure(pathlib.Path(folder), options.rounds)
    options.raw.parent.mkdir(parents=True, exist_ok=True)
    options.raw.write_text(json.dumps(taken))
    about = origin.described() | {"raw": os.fspath(options.raw)}
    print("How long after a kill -9 is the declared state back?\n")
    print("\n".join(f"{name:<10}{value}" for name, value in about.items()))
    print(f"\n{'killed':<12}{'runs':>5}{'median':>9}{'longest':>9}")
    for name, times in taken.items():
        print(f"{name:<12}{len(times):>5}{np.median(times):>7.2f} s{max(times):>7.2f} s")
    return 0
