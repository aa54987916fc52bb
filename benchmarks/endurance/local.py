"""Local mode with one Model, ``many``, whose server holds three: what is done to it, and waiting until it is well."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import yaml

from benchmarks import processes
from benchmarks.endurance import models
from serving.contract import Env

DEADLINE_S = 120.0
REPLICAS = 2
WORKERS = 2
_RUNTIME = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "many"},
    "spec": {
        "local": {
            # A server of several models, which therefore has no name of its own.
            "command": ["env", "--unset", str(Env.MODEL), sys.executable, "-m", "serving", "serve",
                        "$(PENSTOCK_MODEL_DIR)", "--workers", str(WORKERS)]
        },
        "protocols": ["v1", "v2", "grpc-v2"],
        "grpcOverHttp1": True,
        "formats": ["onnx"],
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Replica:
    """One server."""

    process: psutil.Process
    folder: Path
    http_port: int
    grpc_port: int

    def post(self, path: str, body: object = None) -> httpx.Response:
        """A management call, straight to it; HTTPStatusError when it is refused."""
        return httpx.post(f"http://127.0.0.1:{self.http_port}{path}", json=body, timeout=DEADLINE_S).raise_for_status()


class Local:
    """One ``penstock up`` in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.port, self.grpc_port = processes.free_ports(2)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Up with the first revision."""
        runtime = self._folder / "runtime.yaml"
        runtime.write_text(yaml.safe_dump(_RUNTIME))
        files = [str(runtime), str(self.revision(1))]
        with (self._folder / "up.log").open("wb") as log:
            command = self._command("up", *files, "--port", str(self.port), "--grpc-port", str(self.grpc_port))
            up = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            up.terminate()
            up.wait(DEADLINE_S)
            subprocess.run(self._command("down"), check=True, capture_output=True, timeout=DEADLINE_S)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "operators.cli.main", *arguments, "--data-dir", str(self._data)]

    def revision(self, number: int) -> Path:
        """A manifest of ``many`` with content that no other revision has."""
        content = self._folder / f"content-{number}"
        models.write_whole(content / "whole" / "model.onnx", number)
        models.write_whole(content / "extra" / "model.onnx", number)
        models.write_linear(content / "linear" / "model.onnx", number % (models.MAX_LINEAR_VERSION - 1) + 1)
        manifest = self._folder / f"model-{number}.yaml"
        spec = {"source": {"uri": str(content)}, "runtime": "many", "replicas": REPLICAS}
        document = {
            "apiVersion": "penstock.dev/v1alpha1", "kind": "Model", "metadata": {"name": "many"}, "spec": spec,
        }  # fmt: skip
        manifest.write_text(yaml.safe_dump(document))
        return manifest

    async def well(self) -> list[Replica]:
        """Waits until all is as declared, and gives the replicas; TimeoutError after two minutes."""
        began = time.monotonic()
        while not (found := await asyncio.to_thread(self._replicas_when_well)):
            if time.monotonic() - began > DEADLINE_S:
                raise TimeoutError(f"not well after {DEADLINE_S:g} s: {(self._folder / 'up.log').read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        return found

    def _replicas_when_well(self) -> list[Replica]:
        try:
            running = json.loads((self._data / "up.json").read_text())
            url = f"{running['url']}/apis/penstock.dev/v1alpha1/namespaces/default/models/many"
            model = httpx.get(url, headers={"authorization": f"Bearer {running['token']}"}).json()
            status = {c["type"]: c["status"] for c in model["status"]["conditions"]}
            current = model["status"]["observedGeneration"] == model["metadata"]["generation"]
            well = current and status.get("Ready") == status.get("RolloutComplete") == "True"
            replicas = self._replicas() if well and model["status"]["readyReplicas"] == REPLICAS else []
            ready = all(httpx.get(f"http://127.0.0.1:{r.http_port}/v2/health/ready").is_success for r in replicas)
        except (OSError, ValueError, KeyError, httpx.HTTPError, psutil.NoSuchProcess):
            return []
        return replicas if len(replicas) == REPLICAS and ready else []

    def _replicas(self) -> list[Replica]:
        """The servers, without their workers."""
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and "serve" in words and any(word.startswith(str(self._data)) for word in words):
                found[process.pid] = process
        return [
            Replica(
                process,
                Path(of[Env.MODEL_DIR]),
                int(of[Env.HTTP_PORT]),
                int(of[Env.GRPC_PORT]),
            )
            for process in found.values()
            if process.ppid() not in found and (of := process.environ())
        ]

    async def swap(self, replicas: list[Replica], version: int) -> None:
        """New content of ``whole`` at each replica."""
        for folder in {replica.folder for replica in replicas}:
            models.write_whole(folder / "whole" / "model.onnx", version)
        for replica in replicas:
            await asyncio.to_thread(replica.post, "/v2/repository/models/whole/load")

    async def come_and_go(self, replicas: list[Replica]) -> None:
        """``extra`` is unloaded and loaded, and answers afterwards."""
        for replica in replicas:
            await asyncio.to_thread(replica.post, "/v2/repository/models/extra/unload")
            await asyncio.to_thread(replica.post, "/v2/repository/models/extra/load")
            given = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
            answer = await asyncio.to_thread(replica.post, "/v2/models/extra/infer", given)
            if models.whole_version([1, 2, 3, 4], answer.json()["outputs"][0]["data"]) is None:
                raise ValueError(f"extra answered {answer.text} after it was loaded again")

    def end(self, replica: Replica) -> None:
        """Tells a server to end."""
        replica.process.send_signal(signal.SIGTERM)

    def kill_worker(self, replica: Replica) -> None:
        """Kills one process of a server."""
        os.kill(replica.process.children()[0].pid, signal.SIGKILL)

    def kill(self, replica: Replica) -> None:
        """Kills a server."""
        replica.process.kill()

    async def apply(self, number: int) -> None:
        """Declares another revision."""
        command = self._command("apply", "-f", str(self.revision(number)))
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE_S)
        if done.returncode:
            raise RuntimeError(f"penstock apply ended with {done.returncode}: {done.stderr}")
