"""What Triton reads: a repository of one model, and its Python backend beside the stub of this Python.

::

    models/NAME/config.pbtxt      models/NAME/labels-0.txt      models/NAME/1/model.py
    backends/python/…             links into the wheel
    alive                         by which it is seen that the backend's process has ended

Nothing in it may be written to, and it holds no artifact: the configuration says where that is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from google.protobuf import text_format

from serving.errors import ArtifactRefused
from serving.triton import config
from serving.triton.config import Served

MODELS, BACKENDS = "models", "backends"
ALIVE = "alive"
"""A pipe that the process of the backend holds open."""
_MODEL = """\
import os, sys
# The interpreter that Triton starts looks only where Python itself is installed.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
from serving.triton.backend import TritonPythonModel
"""


def write(folder: Path, served: Served, triton: Path) -> None:
    """Lays ``served`` out in ``folder`` for the server whose files are in ``triton``."""
    model = folder / MODELS / served.name
    version = model / "1"
    version.mkdir(parents=True)
    (model / "config.pbtxt").write_text(text_format.MessageToString(config.made(served)))
    for position, spec in enumerate(served.signature.outputs):
        if labels := served.said.labels.get(spec.name):
            (model / config.labels_file(position)).write_text("".join(f"{label}\n" for label in labels))
    (version / "model.py").write_text(_MODEL)

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.exists():
        there = ", ".join(sorted(found.name for found in stub.parents[1].iterdir()))
        raise ArtifactRefused(f"Triton's Python backend has nothing for Python {python}; it has {there}")
    backend = folder / BACKENDS / "python"
    backend.mkdir(parents=True)
    for file in (*(triton / "backends" / "python").iterdir(), stub):
        (backend / file.name).symlink_to(file)
    os.mkfifo(folder / ALIVE, 0o600)
    for made in folder.rglob("*"):
        if not (made.is_symlink() or made.is_fifo()):
            made.chmod(0o500 if made.is_dir() else 0o400)
