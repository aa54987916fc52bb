"""Interpreters for stages whose libraries are too large, or too particular, for the environment Penstock runs in.

Each is an environment made once from the lock of its name beside this (``.txt``, from ``.in`` by ``make lock``), below
``$XDG_CACHE_HOME/penstock`` (``~/.cache``), and again when that lock changed. ``PENSTOCK_TOOLCHAIN_NAME`` names an
interpreter that is there already, as in a builder image.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from serving.errors import ArtifactRefused, StorageUnavailable

_FOLDER = Path(__file__).parent
SIZES = {"torch": "5 GB", "sklearn": "500 MB", "litert": "7 GB"}
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
    if not stamp.exists():
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
            how = ("--compile-bytecode", "--require-hashes", "--requirement", str(_FOLDER / f"{name}.txt"))
            _uv("pip", "install", "--python", str(interpreter), *how)
            stamp.touch()
        except (OSError, subprocess.CalledProcessError) as error:
            said = (
                error.stderr.strip().splitlines()[-1:]
                if isinstance(error, subprocess.CalledProcessError)
                else [str(error)]
            )
            raise StorageUnavailable(f"toolchain {name} could not be installed: {' '.join(said)}; try again") from error
    return interpreter


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True, stderr=subprocess.PIPE, text=True)
