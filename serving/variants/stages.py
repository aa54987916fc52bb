"""Steps that are done once: each in a process of its own, its result kept under a name made of all that goes into it.

A stage's folder appears under its name when it is whole, by a rename, and never changes. So a build that was killed
goes on after the last finished stage, two builds share what they have in common, and nothing half made is ever found.

The process of a stage has no environment but where Python finds its modules, a limit on memory, on file sizes and on
time; it writes into its own folder alone and reaches no network, where the kernel lets us see to it (``confined``); it
dies with the build. A hostile model or dataset costs at most that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import serving
from serving.contract import Exit
from serving.errors import ArtifactRefused, ServingError, StorageUnavailable
from serving.variants import recipe, toolchains

FACTS = "facts.json"
_MAKING = ".making-"
_KEPT_ENV = ("PATH", "LANG")
_CALLED = {"outcome": "evaluation", "profile": "measuring", "weigh": "weighing", "check": "loading"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one stage may take."""

    memory_bytes: int = 8 * 2**30
    time_s: float = 1800.0
    trial_s: float = 60.0
    """For a source's first answer, to zeros."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step: what is done, how, and to what."""

    kind: str
    told: Any
    inputs: Mapping[str, Path]
    """Files by role."""
    made_of: tuple[str, ...]
    """Digests of the inputs' content, and whatever else the result depends on."""
    toolchain: str = ""
    """The environment it runs in; empty: this one."""
    contract: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The Model's, where samples may be pictures."""

    @property
    def name(self) -> str:
        """The name of its result."""
        return (
            f"{self.kind}-{recipe.digest(self.kind, self.told, sorted(self.inputs), self.made_of, self.contract)[:24]}"
        )

    @property
    def called(self) -> str:
        """What people call it."""
        return _CALLED.get(self.kind, self.kind)


class StageFailed(ServingError):
    """The stage ended in a way that a second try may mend."""

    exit = Exit.UNAVAILABLE


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished stage."""

    folder: Path
    facts: dict[str, Any]
    took_s: float
    again: bool
    """It was there before."""


class Stages:
    """The finished stages below a folder."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._refused: dict[str, str] = {}

    def has(self, stage: Stage) -> bool:
        """Whether the stage was finished before."""
        return (self._folder / stage.name).is_dir()

    def made(self, stage: Stage, told: Callable[[float], None] = lambda share: None) -> Made:
        """The stage's result, from before or made now. ``told`` hears the share done.

        ArtifactRefused where doing it again cannot help, which is then not tried; StageFailed and StorageUnavailable
        where it may.
        """
        target = self._folder / stage.name
        again = self.has(stage)
        if stage.name in self._refused:
            raise ArtifactRefused(self._refused[stage.name])
        if not again:
            try:
                self._make(stage, target, told)
            except ArtifactRefused as error:
                self._refused[stage.name] = str(error)
                raise
        facts = json.loads((target / FACTS).read_text())
        return Made(target, facts["facts"], facts["took_s"], again)

    def _make(self, stage: Stage, target: Path, told: Callable[[float], None]) -> None:
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix=_MAKING, dir=self._folder) as made:
                folder = Path(made, "out")
                folder.mkdir()
                facts = _run(stage, folder, self._limits, told)
                took_s = round(time.monotonic() - began, 3)
                (folder / FACTS).write_text(json.dumps({"facts": facts, "took_s": took_s}))
                folder.rename(target)
        except OSError as error:
            raise StorageUnavailable(
                f"{self._folder} cannot be written ({error.strerror}); free some space or name another folder"
            ) from error


@contextlib.contextmanager
def opened(folder: Path, limits: Limits, waiting: Callable[[], None]) -> Iterator[Stages]:
    """The stages below ``folder`` for one build at a time; ``waiting`` is called if another one is at work there.

    What a killed build left half made is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageUnavailable(f"{folder} cannot be used ({error.strerror}); name another folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f"{_MAKING}*"):
            shutil.rmtree(left)
        yield Stages(folder, limits)
    finally:
        os.close(lock)


def _run(stage: Stage, folder: Path, limits: Limits, told: Callable[[float], None]) -> dict[str, Any]:
    order = {
        "kind": stage.kind,
        "told": recipe.plain(stage.told),
        "inputs": {role: str(path) for role, path in stage.inputs.items()},
        "folder": str(folder),
        "contract": dict(stage.contract),
        "memory_bytes": limits.memory_bytes,
        "trial_s": limits.trial_s,
        "parent": os.getpid(),
    }
    interpreter = sys.executable
    if stage.toolchain:
        interpreter = str(toolchains.python(stage.toolchain))
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    confined = [interpreter, "-m", "serving.variants.confined", str(folder.parent)]
    process = subprocess.Popen(
        [*confined, interpreter, "-m", "serving.variants.worker", json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            **{name: value for name, value in os.environ.items() if name in _KEPT_ENV},
            "PYTHONPATH": str(Path(serving.__file__).parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            # Where libraries keep what they think they need again.
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
        },
        cwd=folder,
        start_new_session=True,
    )
    try:
        return _followed(stage, process, limits, told)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _followed(
    stage: Stage, process: subprocess.Popen[bytes], limits: Limits, told: Callable[[float], None]
) -> dict[str, Any]:
    """Reads what the process tells, a line of JSON each, until it ends."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + limits.time_s
    result: dict[str, Any] | None = None
    last, pending = b"", b""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        ready.register(process.stderr, selectors.EVENT_READ)
        while ready.get_map():
            found = ready.select(max(0.0, deadline - time.monotonic()))
            # Asked each time: what never falls silent must end as well.
            if time.monotonic() >= deadline:
                raise ArtifactRefused(
                    f"{stage.called} took longer than {limits.time_s:.0f} s and was stopped; look for an endless loop "
                    "in the model, or give each step more time"
                )
            for key, _ in found:
                read = os.read(key.fd, 65536)
                if not read:
                    ready.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    last = (last + read)[-4096:]
                else:
                    *lines, pending = (pending + read).split(b"\n")
                    for line in lines:
                        message = _message(stage, line)
                        if "share" in message:
                            told(message["share"])
                        else:
                            result = message
    code = process.wait()
    if result is not None and "full" in result:
        raise OSError(errno.ENOSPC, result["full"])
    if result is not None and "short" in result:
        raise ArtifactRefused(f"{stage.called} needs more than the {result['short']} MiB of memory a step may have")
    if result is not None and "refused" in result:
        raise ArtifactRefused(result["refused"])
    if code != Exit.OK or result is None:
        words = last.decode(errors="replace").strip().splitlines()[-1:] or [f"ended with code {code}"]
        if code == -signal.SIGALRM:
            raise ArtifactRefused(
                f"the model gave no answer to zeros within {limits.trial_s:g} s; look for an endless loop in it"
            )
        if code == -signal.SIGKILL:
            raise StageFailed(f"{stage.called} was killed; if memory is short, give it more")
        if code < 0:
            raise StageFailed(
                f"{stage.called} was ended by {signal.Signals(-code).name}: a library broke, or could not have more "
                f"than the {limits.memory_bytes >> 20} MiB of memory of a step; {words[0]}"
            )
        raise StageFailed(f"{stage.called} failed: {words[0]}")
    facts: dict[str, Any] = result["facts"]
    return facts


def _message(stage: Stage, line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise StageFailed(f"{stage.called} told what it should not: {line[:100]!r}; try again") from error
