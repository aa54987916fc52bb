"""What Triton reads: a repository of models, and its Python backend beside the stub of this Python.

::

    models/NAME/config.pbtxt      models/NAME/labels-0.txt      models/NAME/1/model.py
    backends/python/…             links into the wheel, and a copy of the stub
    bin/bash                      starts the processes of the backend
    alive/NAME                    by which it is seen that the one of this model has ended

Nothing in it may be written to, and it holds no artifact: the configuration says where that is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from serving.errors import ArtifactRefused
from serving.triton import config
from serving.triton.config import Served

MODELS, BACKENDS = "models", "backends"
ALIVE = "alive"
"""Pipes, of which the process of each model holds its own open."""
PROGRAMS = "bin"
"""The one folder in which Triton finds programs."""
_BASH = """\
#!{python} -S
# Triton starts its backend by `bash -c " exec PROGRAM WORD..."`. This takes the words as they are and is no shell.
import os, shlex, sys
_, program, *words = shlex.split(sys.argv[2])
os.execv(program, [program, *words])
"""
_MODEL = """\
import os, sys
# The interpreter that Triton starts looks only where Python itself is installed.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
from serving.triton.backend import TritonPythonModel
"""


def write(folder: Path, models: Sequence[Served], triton: Path) -> None:
    """Lays ``models`` out in ``folder`` for the server whose files are in ``triton``."""
    (folder / ALIVE).mkdir(parents=True)
    for served in models:
        _model(folder / MODELS / served.name, served)
        os.mkfifo(folder / ALIVE / served.name, 0o600)

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.exists():
        there = ", ".join(sorted(found.name for found in stub.parents[1].iterdir()))
        raise ArtifactRefused(f"Triton's Python backend has nothing for Python {python}; it has {there}")
    backend = folder / BACKENDS / "python"
    backend.mkdir(parents=True)
    for file in (triton / "backends" / "python").iterdir():
        (backend / file.name).symlink_to(file)
    own_stub = Path(shutil.copy(stub, backend))  # Triton changes its mode
    bash = folder / PROGRAMS / "bash"
    bash.parent.mkdir()
    bash.write_text(_BASH.format(python=sys.executable))
    for made in folder.rglob("*"):
        if not (made.is_symlink() or made.is_fifo()):
            made.chmod(0o500 if made.is_dir() or made in (bash, own_stub) else 0o400)


def _model(folder: Path, served: Served) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config.made(served)))
    for position, spec in enumerate(served.signature.outputs):
        if labels := served.said.labels.get(spec.name):
            (folder / config.labels_file(position)).write_text("".join(f"{label}\n" for label in labels))
    (version / "model.py").write_text(_MODEL)
