import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from onnx import TensorProto

from serving.http.listener import HttpListener, bound
from serving.http.plane import DataPlane
from serving.models.repository import Repository
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics
from tests.rig import onnx_models
from tests.rig.wire import LIMITS, Served


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """``m`` echoes x FP32 [-1]; ``slow`` never answers while its input ``go`` is true; ``text`` echoes strings;
    ``rows`` echoes like ``m``, one response a row.
    """
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    (tmp_path / "rows.identity.json").write_text(
        '{"stream": true, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}'
    )
    onnx_models.endless(tmp_path / "slow.onnx", always=False)
    onnx_models.echo(tmp_path / "text.onnx", TensorProto.STRING)
    metrics, admission = Metrics(), Admission(100, LIMITS.max_held_bytes)
    paths = [
        tmp_path / "m.identity.json",
        tmp_path / "slow.onnx",
        tmp_path / "text.onnx",
        tmp_path / "rows.identity.json",
    ]
    repository = Repository(paths, None, metrics, {"limits": {"maxPending": 8, "timeout": "60s"}}, admission)
    await repository.start()
    plane = DataPlane(Service(repository), metrics, LIMITS, {"penstock-revision": "r1"}, admission)
    listener = HttpListener(plane)
    async with contextlib.AsyncExitStack() as stack:
        with bound("127.0.0.1", 0)[0] as sock:
            port = sock.getsockname()[1]
            await listener.accept({0: sock})
        yield Served(port, plane, listener, repository, stack)
        for name in ("slow",):
            repository.find(name, "").tick(1e18)
        await listener.drain(0)
