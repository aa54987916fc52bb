"""MLServer without parallel workers, which at one worker cost twice to three times the CPU a request."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import engine

asked = engine.asked()
settings = {
    "host": "127.0.0.1",
    "http_port": asked.http_port,
    "grpc_port": asked.grpc_port,
    "metrics_endpoint": None,
    "parallel_workers": 0,
}
model: dict[str, Any] = {
    "name": asked.name,
    "implementation": "benchmarks.peers.mlserver.runtime.Onnx",
    "parameters": {"uri": str(asked.path)},
}
if asked.batch > 1:
    model |= {"max_batch_size": asked.batch, "max_batch_time": 0.002}
Path("settings.json").write_text(json.dumps(settings))
Path("model-settings.json").write_text(json.dumps(model))
os.execv(Path(sys.executable).with_name("mlserver"), ["mlserver", "start", "."])
