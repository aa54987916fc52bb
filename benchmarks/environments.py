"""An environment of its own for each peer, under ``$XDG_CACHE_HOME/penstock/peers`` (``~/.cache``), made when first
asked for and again when its ``requirements.txt`` has changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import PEERS


def cache() -> Path:
    """Where environments and models are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def python(peer: str) -> Path:
    """The interpreter that has what ``peer`` needs. Raises ``CalledProcessError`` if it cannot be installed."""
    requirements = PEERS / peer / "requirements.txt"
    environment = cache() / "peers" / peer
    stamp, interpreter = environment / "requirements.txt", environment / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print(f"making {environment}", file=sys.stderr, flush=True)
        _uv("venv", "--clear", "--python", sys.executable, str(environment))
        # Copies, for a library that two servers map from one file counts half in the memory of each.
        _uv("pip", "install", "--link-mode", "copy", "--python", str(interpreter), "--requirement", str(requirements))
        stamp.write_text(requirements.read_text())
    return interpreter


def frozen(peer: str) -> list[str]:
    """Every distribution in a peer's environment with its version."""
    return _uv("pip", "freeze", "--python", str(python(peer))).splitlines()


def _uv(*arguments: str) -> str:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
