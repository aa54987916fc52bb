"""Triton's server as a process: found, given a repository, and started with everything closed that is not needed.

Triton's advisories of 2025 (CVE-2025-23319, -23320, -23334) went from an error that told the name of a region of shared
memory to the call that registers one. Here a client can register nothing: the calls for shared memory, tracing,
logging and the repository ask for a header that nobody can send, since its value is drawn anew at each start and ends
with a line feed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import logging
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

import serving
from serving import settings
from serving.contract import DRAIN_TIMEOUT_S, Exit
from serving.errors import ArtifactRefused, ServingError
from serving.http import listener
from serving.models import budget, discovery, loading
from serving.parent import die_with
from serving.triton import repository
from serving.triton.config import Served
from serving.variants import toolchains

_log = logging.getLogger(__name__)

_PREFIX = "penstock-triton-"
_CACHE_BYTES = 64 * 2**20
_CLOSED = "shared-memory,trace,logging,model-repository"
_KEPT = ("HOME", "LANG", "TMPDIR", "TZ")
"""Of the environment; the rest is nothing for strangers' models."""


@dataclasses.dataclass(frozen=True)
class Listen:
    """Where Triton listens; 0 takes a free port."""

    host: str
    http_port: int
    grpc_port: int
    metrics_port: int


def serve(
    listen: Listen, path: Path, name: str | None, owner: settings.Document, memory_bytes: int | None = None
) -> Exit:
    """Serves the models at ``path`` until told to end; first it says on standard output by which ports.

    ``memory_bytes`` is what they may take together. ArtifactRefused when one cannot be served so, PortInUse,
    StorageUnavailable when Triton cannot be installed, and ServingError when its server ended by itself.
    """
    models = found(path, name, owner, memory_bytes)
    triton = _installed()
    listen = _free(listen)
    with _scratch() as folder:
        repository.write(folder, models, triton)
        ports = {name: port for name, port in dataclasses.asdict(listen).items() if name != "host"}
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        words, told = command(folder, models, listen, triton), environment(folder, triton, os.environ)
        return _run(words, told, sorted((folder / repository.ALIVE).iterdir()))


def found(path: Path, name: str | None, owner: settings.Document, memory_bytes: int | None = None) -> list[Served]:
    """The models at ``path``, each after it was loaded and tried as ``penstock serve`` does it.

    ``memory_bytes`` is what they may take together; ArtifactRefused names the one that finds no room. Each computes in
    a process of its own at Triton, so what it takes is what such a process has.
    """
    models = discovery.discover([path], name)
    for model in models:
        if len(model.versions) != 1:
            told = f"model {model.name} has several versions, and Triton is given one; name its folder"
            raise ArtifactRefused(model.problem or told)
    return list(_loaded(models, owner, memory_bytes))


def _loaded(models: Sequence[discovery.Found], owner: settings.Document, memory_bytes: int | None) -> Iterator[Served]:
    taken = 0
    for model in models:
        (file,) = model.versions.values()
        said = settings.of(file, owner)
        apart = said if memory_bytes is None else msgspec.structs.replace(said, isolation="process")
        loaded, size = budget.measured(file, functools.partial(loading.load, file, apart))
        loaded.engine.close()
        _log.info("model %s: it %s", model.name, loaded.finding)
        if memory_bytes is not None and taken + size > memory_bytes:
            raise ArtifactRefused(
                f"model {model.name} takes {_mib(size)} of memory, and {_mib(memory_bytes - taken)} of the "
                f"{_mib(memory_bytes)} of this server (--memory-budget) are free; raise it, or serve the model "
                "elsewhere"
            )
        taken += size
        yield Served(model.name, file.absolute(), loaded.engine.signature, loaded.max_rows, said)


def command(folder: Path, models: Sequence[Served], listen: Listen, triton: Path) -> list[str]:
    """The command line of Triton's server for the repository in ``folder``."""
    closed = f"{_CLOSED}:penstock-closed={secrets.token_hex()}\n"
    cache = (f"--cache-config=local,size={_CACHE_BYTES}", f"--cache-directory={triton / 'caches'}")
    return [
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={folder / repository.MODELS}",
        f"--backend-directory={folder / repository.BACKENDS}",
        # Of two servers with one prefix the second takes the shared memory of the first.
        f"--backend-config=python,shm-region-prefix-name={folder.name}-",
        "--model-control-mode=explicit",
        *(f"--load-model={served.name}" for served in models),
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        f"--exit-timeout-secs={DRAIN_TIMEOUT_S}",
        f"--http-address={listen.host}",
        f"--http-port={listen.http_port}",
        f"--grpc-address={listen.host}",
        f"--grpc-port={listen.grpc_port}",
        f"--metrics-address={listen.host}",
        f"--metrics-port={listen.metrics_port}",
        "--allow-gpu-metrics=false",
        f"--http-restricted-api={closed}",
        f"--grpc-restricted-protocol={closed}",
        *(cache if any(served.said.cache for served in models) else ()),
    ]


def environment(folder: Path, triton: Path, own: Mapping[str, str]) -> dict[str, str]:
    """What Triton and the Python in it find their libraries by, and the one program that it may start."""
    packages = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    libraries = [sysconfig.get_config_var("LIBDIR"), str(triton.parents[1] / "nvidia_pytriton.libs")]
    return {name: own[name] for name in _KEPT if name in own} | {
        "PATH": str(folder / repository.PROGRAMS),
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join([*packages, str(Path(serving.__file__).parents[1])]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def _installed() -> Path:
    """The folder ``tritonserver`` of the wheel."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ArtifactRefused(
            f"Triton's server comes for Linux on x86_64, and this is {sys.platform} on {platform.machine()}; "
            "use the runtime onnxruntime"
        )
    if importlib.util.find_spec("uv") is None and "PENSTOCK_TOOLCHAIN_TRITON" not in os.environ:
        raise ArtifactRefused(
            "Triton's server is not installed, and nothing here installs it; install penstock[local,triton], or name "
            "the interpreter of an environment with nvidia-pytriton in PENSTOCK_TOOLCHAIN_TRITON"
        )
    size = toolchains.SIZES["triton"]
    python = toolchains.python("triton", lambda: _log.info("installing Triton's server (%s, once)", size))
    triton = next(python.parents[1].glob("lib/python*/site-packages/pytriton/tritonserver"), None)
    if triton is None:
        raise ArtifactRefused(f"{python.parents[1]} has no Triton server; install nvidia-pytriton there")
    return triton


def _free(listen: Listen) -> Listen:
    """The same with a number for each port; PortInUse when one is taken, which Triton would say less clearly."""
    asked = {"http": listen.http_port, "grpc": listen.grpc_port, "metrics": listen.metrics_port}
    with contextlib.ExitStack() as held:
        got = {
            name: held.enter_context(listener.bound(listen.host, port, protocol=name.upper())[0]).getsockname()[1]
            for name, port in asked.items()
        }
    return Listen(listen.host, got["http"], got["grpc"], got["metrics"])


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the repository; what servers left that were killed is ended and removed first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists() and left.lstat().st_uid == os.getuid():
            _clear(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Removes a folder, and processes and shared memory of its backend, which may miss that its server was killed."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            program = (process / "cmdline").read_bytes().partition(b"\0")[0]
            if program.startswith(f"{folder}/".encode()) and process.stat().st_uid == os.getuid():
                os.kill(int(process.name), signal.SIGKILL)
    for region in Path("/dev/shm").glob(f"{folder.name}*"):
        region.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # two that start at once may find the same
        for inside in (folder, *folder.rglob("*")):
            if inside.is_dir() and not inside.is_symlink():
                inside.chmod(0o700)
        shutil.rmtree(folder)


def _run(words: list[str], told: Mapping[str, str], alive: Sequence[Path]) -> Exit:
    """Runs the server and hands signals on to it; ServingError when it ends unasked, or the process of a model does.

    Without that Triton says for ever that it is ready, and answers nothing.
    """
    parent, ending, lost = os.getpid(), False, ""

    def end(number: int, frame: object) -> None:
        nonlocal ending
        ending = True
        process.send_signal(signal.SIGTERM)

    def watch(pipe: Path) -> None:
        nonlocal lost
        pipe.read_bytes()
        if not ending:
            lost = lost or pipe.name
            process.kill()

    # A session of its own: Ctrl-C would come twice, and at the second signal Triton drops what it has.
    process = subprocess.Popen(words, env=told, start_new_session=True, preexec_fn=lambda: die_with(parent))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    for pipe in alive:
        threading.Thread(target=watch, args=(pipe,), daemon=True).start()
    code = process.wait()
    if ending:
        return Exit.OK
    if lost:
        raise ServingError(
            f"the process of Triton's backend that computes model {lost} ended unasked; what it said says why"
        )
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    raise ServingError(f"Triton's server of {_listed(alive)} {how} unasked; what it said before says why")


def _listed(pipes: Sequence[Path]) -> str:
    return f"{'model' if len(pipes) == 1 else 'models'} {', '.join(pipe.name for pipe in pipes)}"


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
