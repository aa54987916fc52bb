"""Each engine as a user starts it by itself, with the model of the digits."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from serving.conformance.target import Place
from tests.rig import model_server
from tests.rig.model_server import ROOT, ModelServer

DIGITS = ROOT / "examples" / "digits"
ENGINES = ("onnxruntime", "openvino", "litert", "triton", "rayserve")


PENSTOCK = (sys.executable, "-m", "operators.cli.main")
SETTINGS = {"batching": {"maxSize": 32, "maxDelay": "5ms"}}
"""Of every engine: left to itself a server finds out whether batches are worth it, here and now."""


def command(engine: str) -> str:
    """The command of ``penstock`` that starts a server of the engine."""
    return engine if engine in ("triton", "rayserve") else "serve"


def artifact(engine: str, folder: Path) -> Path:
    """A folder ``digits`` with the file of the digits that the engine loads."""
    model = folder / "digits"
    model.mkdir(parents=True)
    if engine == "litert":
        shutil.copy(_lowered(str(folder)), model / "model.tflite")
    else:
        shutil.copy(DIGITS / "model.onnx", model / ("model.openvino.onnx" if engine == "openvino" else "model.onnx"))
    return model


@functools.cache
def _lowered(folder: str) -> Path:
    """The digits as LiteRT has them, made by a build."""
    document = yaml.safe_load((DIGITS / "model.yaml").read_text())
    spec = document["spec"] | {"runtime": "litert", "variants": [{"name": "fp32"}]}
    spec["source"]["uri"] = str(DIGITS / "model.onnx")
    spec["evaluation"]["dataset"]["uri"] = str(DIGITS / "eval.npz")
    file = Path(folder) / "litert.yaml"
    file.write_text(yaml.safe_dump(document | {"spec": spec}))
    words = [*PENSTOCK, "build", str(file), "--store", f"{folder}/store", "-o", "json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (lowered,) = (one for one in json.loads(done.stdout)["variants"] if one["name"] == "fp32")
    return Path(lowered["uri"].removeprefix("file://"))


@contextlib.contextmanager
def running(engine: str, model: Path) -> Iterator[tuple[ModelServer, Place]]:
    """The engine's server with ``model``, ready, and where it is."""
    with model_server.running(command(engine), str(model), "--settings", json.dumps(SETTINGS)) as server:

        def is_ready() -> bool:
            assert server.process.poll() is None
            with contextlib.suppress(OSError):
                return server.get("/v2/health/ready")[0] == 200
            return False

        model_server.until(is_ready, f"{engine} is ready")
        metrics = server.metrics_port or server.http_port
        yield (
            server,
            Place(
                f"http://{server.authority}/v2/models/digits",
                f"127.0.0.1:{server.grpc_port}",
                f"http://127.0.0.1:{metrics}/metrics",
                inputs=None,
            ),
        )
