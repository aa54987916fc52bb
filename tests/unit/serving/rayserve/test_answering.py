from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from serving import settings
from serving.errors import ServingError, TooLarge, UnknownModel, Unsupported
from serving.models.repository import Repository
from serving.protocols import grpc
from serving.rayserve.answering import Answer, Answering
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics
from tests.rig import onnx_models

LIMIT = 4096
ASKED = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


async def parts(*of: bytes) -> AsyncIterator[bytes]:
    for part in of:
        yield part


async def started(folder: Path) -> Answering:
    """Answers for a model ``double`` of twice its weights, of revision r1."""
    counted = Metrics()
    path = onnx_models.linear(folder / "double.onnx", 2.0)
    models = Repository([path], None, counted, settings.parse("{}", "nobody"), Admission(8, 2**20))
    await models.start()
    return Answering(Service(models), counted, LIMIT, {"penstock-revision": "r1"})


async def asked(
    answering: Answering, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Answer:
    return await answering.http(method, path, (headers or {}).get, parts(body[:3], body[3:]))


async def test_inferences_are_answered_and_counted_and_name_their_revision(tmp_path: Path) -> None:
    answering = await started(tmp_path)

    answer = await asked(answering, "POST", "/v2/models/double/infer", orjson.dumps(ASKED))

    (output,) = orjson.loads(answer.body)["outputs"]
    assert (answer.status, output["data"]) == (200, [12, 14, 16])
    assert answer.headers == {"content-type": "application/json", "penstock-revision": "r1"}
    metrics = (await asked(answering, "GET", "/metrics")).body.decode()
    assert 'nv_inference_request_success{model="double",version="1"} 1' in metrics
    assert answering.in_work == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/v2/models/double/infer", b"{}", 400, "no inputs"),
        ("POST", "/v2/models/other/infer", b"{}", 404, "Request for unknown model: 'other'"),
        ("POST", "/v2/models/double/infer", bytes(LIMIT + 1), 413, "more than 4096 bytes"),
        ("POST", "/v2/repository/models/double/unload", b"", 404, "nothing that is answered here"),
        ("GET", "/debug/requests", b"", 501, "serve the model with the runtime onnxruntime"),
        ("DELETE", "/v2", b"", 404, "DELETE /v2 is nothing"),
    ],
)
async def test_what_cannot_be_answered_is_told_with_its_status(
    tmp_path: Path, method: str, path: str, body: bytes, status: int, error: str
) -> None:
    answer = await asked(await started(tmp_path), method, path, body)

    assert answer.status == status
    assert error in orjson.loads(answer.body)["error"]


@pytest.mark.parametrize(
    ("method", "payload", "error"),
    [
        ("ModelInfer", bytes(LIMIT + 1), TooLarge),
        ("ModelInfer", grpc.InferRequest(model_name="other").SerializeToString(), UnknownModel),
        ("ModelInfer", b"\xff", ServingError),
        ("Nothing", b"", Unsupported),
    ],
)
async def test_calls_that_fail_have_the_code_of_their_error(
    tmp_path: Path, method: str, payload: bytes, error: type[ServingError]
) -> None:
    with pytest.raises(error):
        await (await started(tmp_path)).grpc(method, payload, lambda name: None)


async def test_a_replica_that_leaves_is_not_ready_and_waits_for_what_it_has_begun(tmp_path: Path) -> None:
    answering = await started(tmp_path)
    assert (await asked(answering, "GET", "/v2/health/ready")).status == 200

    answering.in_work += 1
    leaving = asyncio.ensure_future(answering.leave(60.0, 0.01))
    done, _ = await asyncio.wait([leaving], timeout=0.1)
    assert not done
    assert (await asked(answering, "GET", "/v2/health/ready")).status == 503
    answering.in_work -= 1
    await leaving
