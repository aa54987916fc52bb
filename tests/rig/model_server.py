"""A real ``python -m serving`` process on free ports, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


@dataclass(frozen=True)
class ModelServer:
    """A server that listens."""

    process: subprocess.Popen[str]
    http_port: int
    grpc_port: int | None
    metrics_port: int | None = None
    """Where it is not that of REST."""

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET."""
        return self.request("GET", path)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of a request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=DEADLINE_S)) as client:
            client.request(method, path, body, dict(headers or {}))
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    def stop(self) -> int:
        """Tells the process to end and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def running(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[ModelServer]:
    """A server with these arguments (``serve PATH``, ``catalog --index FILE``), ready."""
    process = start(*arguments, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, errors = process.communicate(timeout=DEADLINE_S)
            raise RuntimeError(f"the server ended with {process.returncode}: {errors}")
        ports = json.loads(line)
        server = ModelServer(process, ports["http_port"], ports.get("grpc_port"), ports.get("metrics_port"))
        drain = threading.Thread(target=process.communicate, daemon=True)
        drain.start()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_S)


def start(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """The process alone, on free ports of this machine where it is a server."""
    command, *rest = arguments
    inferring = command in ("serve", "triton", "rayserve")
    listening = ["--host", "127.0.0.1", "--http-port", "0"] if inferring or command == "catalog" else []
    listening += ["--grpc-port", "0"] if inferring else []
    return subprocess.Popen(
        [sys.executable, "-m", "serving", command, *listening, *rest],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
    """Waits until the condition holds; TimeoutError says what never came."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it never came that {what}, within {within_s:g} s")
        pause.wait(0.02)
