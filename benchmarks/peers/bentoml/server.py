"""BentoML with one worker, asked in its own JSON: it has no V2."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.peers import engine

asked = engine.asked()
os.environ |= {
    "BENCHMARK_MODEL": str(asked.path),
    "BENCHMARK_BATCH": str(asked.batch),
    "BENTOML_DO_NOT_TRACK": "True",
    "BENTOML_HOME": str(Path.cwd()),
}
listen = ["--host", "127.0.0.1", "--port", str(asked.http_port)]
folder = str(Path(__file__).parent)
command = [sys.executable, "-m", "bentoml", "serve", "service:Onnx", "--working-dir", folder, *listen]
os.execv(sys.executable, command)
