"""Interpreters for what is too large, or too particular, for the environment Penstock runs in: stages, and Triton.

Each is an environment made once from the lock of its name beside this (``.txt``, from ``.in`` by ``make lock``), below
``$XDG_CACHE_HOME/penstock`` (``~/.cache``), and again when that lock changed. ``PENSTOCK_TOOLCHAIN_NAME`` names an
interpreter that is there already, as in a builder image. Who needs one that is being made waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.errors import ArtifactRefused, StorageUnavailable

_FOLDER = Path(__file__).parent
SIZES = {"torch": "5 GB", "sklearn": "500 MB", "litert": "7 GB", "triton": "150 MB"}
"""What each takes on disk."""


def digest(name: str) -> str:
    """What a toolchain is made of, as part of what a stage's result depends on."""
    return hashlib.sha256((_FOLDER / f"{name}.txt").read_bytes()).hexdigest()


def python(name: str, making: Callable[[], None] = lambda: None) -> Path:
    """The interpreter of a toolchain; ``making`` is called before it is installed, which takes minutes.

    ArtifactRefused where nothing installs it, as in a builder image; StorageUnavailable where that fails.
    """
    if given := os.environ.get(f"PENSTOCK_TOOLCHAIN_{name.upper()}"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "toolchains"
    environment = cache / f"{name}-{digest(name)[:12]}"
    interpreter, stamp = environment / "bin" / "python", environment / ".whole"
    with _alone(environment) if not stamp.exists() else contextlib.nullcontext():
        if stamp.exists():
            return interpreter
        if importlib.util.find_spec("uv") is None:
            raise ArtifactRefused(
                f"it needs the toolchain {name}, which this builder lacks; make it elsewhere with `penstock build` and "
                f"name the result as the variant's source, or build in an image that has it and names its interpreter "
                f"in PENSTOCK_TOOLCHAIN_{name.upper()}"
            )
        making()
        try:
            _uv("venv", "--clear", "--python", sys.executable, str(environment))
            # Compiled, because a stage may write nothing there and would do it anew each time.
            # A lock names everything: what it leaves out is not needed.
            lock = ("--no-deps", "--require-hashes", "--requirement", str(_FOLDER / f"{name}.txt"))
            _uv("pip", "install", "--python", str(interpreter), "--compile-bytecode", *lock)
            stamp.touch()
        except (OSError, subprocess.CalledProcessError) as error:
            said = (
                error.stderr.strip().splitlines()[-1:]
                if isinstance(error, subprocess.CalledProcessError)
                else [str(error)]
            )
            raise StorageUnavailable(f"toolchain {name} could not be installed: {' '.join(said)}; try again") from error
    return interpreter


@contextlib.contextmanager
def _alone(environment: Path) -> Iterator[None]:
    """No other process makes the same environment."""
    environment.parent.mkdir(parents=True, exist_ok=True)
    with environment.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True, stderr=subprocess.PIPE, text=True)
