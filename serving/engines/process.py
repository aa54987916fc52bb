"""An engine in a process of its own: whatever happens to it, the server and its other models go on.

A thread starts the process, waits for its end, and starts it again: at once after a process that had answered
something, else after 0.5 s, 1 s, 2 s … 30 s, so that a model that cannot run does not keep a CPU busy. Meanwhile
``problem`` says what happened and every call fails with EngineLost. (The thread is also what the process is tied to:
Linux kills it when the thread that started it ends.)

A call that is interrupted is first asked to end (ONNX Runtime looks up between two nodes of a graph), then its
process is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import serving
from serving import errors
from serving.engines import artifact, child, frames
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, EngineLost, ServingError
from serving.settings import Settings
from serving.tensors import Array, Signature, Tensor, TensorSpec

_log = logging.getLogger(__name__)

_GRACE_S = 1.0
"""How long a call may go on after it was told to stop."""
_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0
_REAP_S = 10.0


class ProcessEngine:
    """An artifact loaded by another process."""

    may_block = True
    """Whatever the engine says: a process can always be stuck."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = settings
        self._identity = artifact.identity(path)
        self._calls = 0
        self._child: _Child | None = None
        self._changing = threading.Lock()
        self._refusal: ServingError | None = None
        self._settled = threading.Event()
        self._closed = threading.Event()
        self.problem = "its process is being started"
        self.signature: Signature
        self.platform = ""
        self.may_loop = False
        threading.Thread(target=self._supervise, name=f"engine-{path.name}", daemon=True).start()
        self._settled.wait()
        if self._refusal is not None:
            raise self._refusal

    @property
    def pid(self) -> int | None:
        """The process, while it can be called."""
        current = self._child
        return None if current is None else current.process.pid

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """What the process answers; EngineLost when it ends before it does."""
        current = self._child
        if current is None:
            raise EngineLost(f"the model cannot answer now: {self.problem}; send the request again")
        self._calls = call = self._calls + 1
        tensors = [Tensor(spec.name, spec.datatype, inputs[spec.name]) for spec in self.signature.inputs]
        with current.lock:
            current.call = call
            if interrupt is not None:
                interrupt.arm(lambda: current.stop(call))
            try:
                return current.ask({"call": call, "outputs": list(outputs)}, tensors)
            except ServingError:
                raise
            except Exception as error:
                if not isinstance(error, EOFError | OSError):
                    current.kill(f"answered nonsense ({error}) and was killed")
                how = current.obituary()
                self._gone(current, f"its process {how} and is started again")
                raise EngineLost(f"the model's process {how}; send the request again") from error
            finally:
                current.call = 0

    def close(self) -> None:
        """Ends the process."""
        self._closed.set()
        current = self._child
        if current is not None:
            current.kill("was ended")

    def _gone(self, current: _Child | None, problem: str) -> None:
        """Says so at once: whoever looks at ``problem`` after a call that was lost must not think that all is well."""
        with self._changing:
            if self._child is current:
                self.problem = problem
                self._child = None

    def _supervise(self) -> None:
        failures = 0
        while not self._closed.is_set():
            current, how = None, ""
            try:
                if artifact.identity(self._path) != self._identity:
                    raise ArtifactRefused(f"{self._path} has changed since it was loaded; load the model again")
                current = _Child(self._path)
                self._begin(current)
                self._settled.set()
                current.process.wait()
                how = current.obituary()
            except ServingError as error:
                how = f"was refused: {error}"
                self._refusal = error
            except (EOFError, OSError, KeyError, TypeError, ValueError) as error:
                if current is None:
                    how = f"could not be started ({error})"
                    self._refusal = ServingError(f"the process for {self._path} {how}")
                else:
                    if not isinstance(error, EOFError | OSError):
                        current.kill(f"said nonsense ({error}) and was killed")
                    how = current.obituary()
                    self._refusal = ArtifactRefused(f"{self._path} cannot be loaded: the process for it {how}")
            failures = 1 if current is not None and current.has_answered else failures + 1
            delay_s = min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (failures - 2)) if failures > 1 else 0.0
            problem = f"its process {how} and is started again"
            if delay_s:
                problem = f"its process ended {failures} times in a row without an answer, the last one {how}"
                problem += f"; it is started again in {delay_s:g} s"
            self._gone(self._child, problem)
            if current is not None:
                current.bury()
            if not self._settled.is_set():  # it never ran: whoever wanted it is told, and nobody tries again
                self._settled.set()
                return
            if not self._closed.is_set():
                _log.warning("%s: %s", self._path, problem)
            self._closed.wait(delay_s)

    def _begin(self, current: _Child) -> None:
        current.channel.send({"path": str(self._path), "settings": msgspec.to_builtins(self._settings)})
        head, _ = current.channel.receive()
        if "error" in head:
            raise _error(head)
        inputs, outputs = (
            tuple(TensorSpec(name, datatype, tuple(shape)) for name, datatype, shape in head[key])
            for key in ("inputs", "outputs")
        )
        self.signature = Signature(inputs, outputs)
        self.platform = head["platform"]
        self.may_loop = bool(head["may_loop"])
        with self._changing:
            self.problem = ""
            self._child = current
        if self._closed.is_set():
            current.kill("was ended")


class _Child:
    """One process and the ways to it."""

    def __init__(self, path: Path) -> None:
        calls, its_calls = socket.socketpair()
        control, its_control = socket.socketpair()
        arguments = [f"--parent={os.getpid()}", f"--calls={its_calls.fileno()}", f"--control={its_control.fileno()}"]
        passed = [its_calls.fileno(), its_control.fileno()]
        written = read = None
        if sys.platform == "linux":
            written, read = frames.Region.make(f"{path.name} in"), frames.Region.make(f"{path.name} out")
            passed += [written.descriptor, read.descriptor]
            arguments.append(f"--regions={written.descriptor},{read.descriptor}")
        self.channel = frames.Channel(calls, written, read)
        self.lock = threading.Lock()
        """Held for a call, and to close what a call uses."""
        self.call = 0
        """The call it works on; 0: none."""
        self.has_answered = False
        control.setblocking(False)
        self._control = control
        self._killed = ""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "serving", "engine", *arguments],
            cwd="/",
            env={"PYTHONPATH": str(Path(serving.__file__).parents[1]), "LANG": "C.UTF-8"},
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # a Ctrl-C in a terminal is for the server, which ends this one after its requests
        )
        its_calls.close()
        its_control.close()

    def ask(self, head: dict[str, Any], tensors: Sequence[Tensor]) -> list[Array]:
        """The outputs of one call."""
        self.channel.send(head, tensors)
        reply, answered = self.channel.receive()
        if "error" not in reply and [tensor.name for tensor in answered] != head["outputs"]:
            raise ValueError("it gave other outputs than those it was asked for")
        self.has_answered = True
        if "error" in reply:
            raise _error(reply)
        if not reply["shared"]:
            return [tensor.array for tensor in answered]
        # The next answer will lie where this one does.
        arrays = [tensor.array if tensor.datatype == "BYTES" else tensor.array.copy() for tensor in answered]
        del answered
        self.channel.trim(reply)
        return arrays

    def stop(self, call: int) -> None:
        """Asks for the end of a call, and kills the process when it does not come."""

        def insist() -> None:
            if self.call == call:
                self.kill(f"did not stop within {_GRACE_S:g} s of being told to and was killed")

        if self.call != call:
            return
        with contextlib.suppress(OSError):  # it has ended
            self._control.send(child.STOP.pack(call))
        timer = threading.Timer(_GRACE_S, insist)
        timer.daemon = True
        timer.start()

    def kill(self, why: str) -> None:
        """Ends the process at once."""
        if self.process.poll() is None:
            self._killed = why
            self.process.kill()

    def obituary(self) -> str:
        """How the process ended, once it has; one that goes on without its socket is killed."""
        try:
            code = self.process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            self.kill("closed its connection and was killed")
            code = self.process.wait()
        if self._killed:
            return self._killed
        if code >= 0:
            return f"ended with code {code}"
        hint = ", by the kernel if memory ran out" if code == -signal.SIGKILL else ""
        return f"was killed by signal {-code} ({signal.Signals(-code).name}{hint})"

    def bury(self) -> None:
        """Ends the process if it lives, and lets go of the ways to it."""
        self.kill("was ended")
        self.process.wait()
        with self.lock:
            self._control.close()
            self.channel.close()


def _error(head: Mapping[str, str]) -> ServingError:
    kind = {
        "ArtifactRefused": errors.ArtifactRefused,
        "InvalidInput": errors.InvalidInput,
        "InferenceFailed": errors.InferenceFailed,
    }.get(head["error"], errors.ServingError)
    return kind(head["text"])
