"""One server, reached both ways, for the cases of gRPC."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from operators.api.plan import Split
from serving.contract import Env
from tests.conformance.ways import MAX_PENDING, MAX_REQUEST_BYTES, Way
from tests.rig import model_server, onnx_models, routed


@pytest.fixture(scope="session")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    folder = tmp_path_factory.mktemp("ways")
    echo = folder / "echo.identity.json"
    echo.write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}))
    slow = onnx_models.endless(folder / "slow.onnx", always=False)
    index = folder / "index.json"
    index.write_text(json.dumps([{"name": name, "version": "1", "state": "READY"} for name in ("echo", "slow")]))
    limits = (
        "--max-request-bytes",
        str(MAX_REQUEST_BYTES),
        "--settings",
        json.dumps({"limits": {"maxPending": MAX_PENDING}}),
    )
    identity = {Env.REVISION: routed.REVISION, Env.VARIANT: routed.VARIANT}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            model_server.running("serve", *limits, str(echo), str(slow), env={str(k): v for k, v in identity.items()})
        )
        catalog = stack.enter_context(model_server.running("catalog", "--index", str(index)))
        one = Split("default", "one", (("echo", 10_000),), None)
        listen = stack.enter_context(routed.running(folder / "router", server, catalog, ["echo", "slow"], [one]))
        ways = {
            "direct": Way("direct", f"127.0.0.1:{server.grpc_port}", server),
            "routed": Way("routed", f"127.0.0.1:{listen.grpc_port}", server),
        }
        yield ways
        for way in ways.values():
            way.channel.close()


@pytest.fixture(params=["direct", "routed"])
def way(request: pytest.FixtureRequest, both_ways: dict[str, Way]) -> Iterator[Way]:
    found = both_ways[request.param]
    yield found
    found.until_pending(0)
