"""The process that holds one engine: started by ``serving.engines.process``, ends with whoever started it.

It answers one call after the other. Orders to stop one come on a second socket, which a thread reads, because the
first is not looked at while the engine computes; the end of that socket, like the end of the parent, is the end of
this process. It has no port, no environment but where Python finds its modules, and nothing to clean up: it may be
killed at any moment.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import msgspec

from serving.contract import Exit
from serving.engines import artifact, frames
from serving.engines.base import Engine, Interrupt, StreamingEngine
from serving.errors import ArtifactRefused, InvalidInput, ServingError
from serving.parent import die_with
from serving.settings import Settings
from serving.tensors import Tensor

STOP = struct.Struct("<Q")
"""An order: the number of the call to stop."""


def main(parent: int, calls: int, control: int, regions: tuple[int, int] | None) -> Exit:
    """Serves calls on inherited descriptors until the parent closes them."""
    if not die_with(parent):
        return Exit.FAILED
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides; it still has requests for us
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # elsewhere than on Linux: the kernel then chooses for itself
        Path("/proc/self/oom_score_adj").write_text("1000")
    read, written = (frames.Region(descriptor) for descriptor in regions) if regions else (None, None)
    channel = frames.Channel(socket.socket(fileno=calls), written, read)
    orders = _Orders(socket.socket(fileno=control))
    try:
        engine = _loaded(channel)
        while engine is not None:
            _answer(channel, engine, orders)
    except (EOFError, OSError):
        return Exit.OK
    return Exit.REFUSED


def _loaded(channel: frames.Channel) -> Engine | None:
    """The engine the first message asks for; None when it cannot be had, which the parent was told."""
    head, _ = channel.receive()
    said = msgspec.convert(head["settings"], Settings)
    memory_bytes = said.limits.memory_bytes
    path, within = Path(head["path"]), ""
    try:
        if memory_bytes is not None:
            artifact.prepare(path)  # a library that finds no memory ends with a traceback of its own
            empty = _allocated_bytes()
            if empty >= memory_bytes:
                raise ArtifactRefused(
                    f"limits.memory {said.limits.memory} is too little to start the engine of {path}; one without a "
                    f"model takes about {empty >> 20}Mi"
                )
            within = f" (limits.memory {said.limits.memory}, of which an engine without a model takes {empty >> 20}Mi)"
            # Counts what is allocated, unlike RLIMIT_AS, which counts libraries and room only reserved too.
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        engine = artifact.load(path, said)
    except ServingError as error:
        channel.send({"error": type(error).__name__, "text": f"{error}{within}"})
        return None
    except MemoryError:
        channel.send({"error": "ArtifactRefused", "text": f"{path} needs more memory than it may have{within}"})
        return None
    if isinstance(engine, StreamingEngine):
        text = f"{path} answers with streams, which come from the server's own process only; use isolation: none"
        channel.send({"error": "ArtifactRefused", "text": text})
        return None
    signature = engine.signature
    channel.send(
        {
            "platform": engine.platform,
            "may_loop": engine.may_loop,
            "inputs": [[spec.name, spec.datatype, spec.shape] for spec in signature.inputs],
            "outputs": [[spec.name, spec.datatype, spec.shape] for spec in signature.outputs],
        }
    )
    return engine


def _allocated_bytes() -> int:
    """What RLIMIT_DATA counts; 0 where there is no such file, and no such limit that counts it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")), 0) * 1024


def _answer(channel: frames.Channel, engine: Engine, orders: _Orders) -> None:
    head, tensors = channel.receive()
    kinds = {spec.name: spec.datatype for spec in engine.signature.outputs}
    reply: dict[str, Any] = {}
    outputs: list[Tensor] = []
    interrupt = orders.begin(head["call"])
    try:
        arrays = engine.infer({tensor.name: tensor.array for tensor in tensors}, head["outputs"], interrupt)
        outputs = [Tensor(name, kinds[name], array) for name, array in zip(head["outputs"], arrays, strict=True)]
    except InvalidInput as error:
        reply = {"error": "InvalidInput", "text": str(error)}
    except ServingError as error:
        reply = {"error": "InferenceFailed", "text": str(error)}
    except MemoryError:
        reply = {"error": "InferenceFailed", "text": "the model failed: it needs more memory than it may have"}
    except Exception as error:  # an engine's own; the parent's queue makes the same of it
        reply = {"error": "InferenceFailed", "text": f"the model failed: {type(error).__name__}: {error}"}
    orders.end()
    channel.send(reply, outputs)
    del tensors, outputs
    channel.trim(head)


class _Orders:
    """Stops the running call when told to, and ends the process when there is nobody left to tell."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()
        self._running: tuple[int, Interrupt] | None = None
        self._stopped = 0
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def begin(self, call: int) -> Interrupt:
        interrupt = Interrupt()
        with self._lock:
            self._running = (call, interrupt)
            if call <= self._stopped:  # the order was faster than the call
                interrupt.fire()
        return interrupt

    def end(self) -> None:
        with self._lock:
            self._running = None

    def _listen(self) -> None:
        while True:
            order = self._socket.recv(STOP.size, socket.MSG_WAITALL)
            if len(order) < STOP.size:
                os._exit(Exit.OK)
            with self._lock:
                (self._stopped,) = STOP.unpack(order)
                if self._running is not None and self._running[0] == self._stopped:
                    self._running[1].fire()
