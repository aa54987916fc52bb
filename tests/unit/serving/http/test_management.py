"""What is not inference, asked of the listener: FastAPI answers some of it, the protocol class the rest."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.http.listener import HttpListener, bound
from serving.http.plane import DataPlane
from serving.models.repository import Repository
from serving.scheduling import Admission
from serving.service import Service, version
from serving.telemetry.metrics import Metrics
from tests.rig import onnx_models
from tests.rig.wire import LIMITS

UNKNOWN = "Request for unknown model: 'q' is not served here; GET /v2/models lists what is served: bad, digits"

EXTENSIONS = [
    "binary_tensor_data", "classification", "generate", "model_configuration", "model_repository", "parameters",
    "schedule_policy", "statistics",
]  # fmt: skip
METADATA = {
    "name": "digits",
    "versions": ["1", "2"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}
CONFIG = {
    "name": "digits",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "max_batch_size": 32,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [3]}],
    "dynamic_batching": {"max_queue_delay_microseconds": 0},
}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    for number in ("1", "2"):
        onnx_models.linear(tmp_path / "digits" / number / "model.onnx")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").touch()
    metrics, admission = Metrics(), Admission(100, 10**9)
    repository = Repository([tmp_path], None, metrics, {}, admission)
    await repository.start()
    listener = HttpListener(DataPlane(Service(repository), metrics, LIMITS, {}, admission))
    with bound("127.0.0.1", 0)[0] as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        await listener.accept({0: sock})
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client
    await listener.drain(0)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/", {"status": "alive"}),
        ("/v2", {"name": "penstock", "version": version(),
                 "extensions": EXTENSIONS}),
        ("/v2/models", {"models": ["bad", "digits"]}),
        ("/v2/models/digits", METADATA),
        ("/v2/models/digits/versions/2", {**METADATA, "versions": ["2"]}),
        ("/v2/models/digits/config", CONFIG),
        ("/v2/models/digits/versions/2/config", CONFIG),
        ("/v1/models", {"models": ["bad", "digits"]}),
        ("/v1/models/digits", {"name": "digits", "ready": True}),
    ],
)  # fmt: skip
async def test_what_is_asked_is_told(client: httpx.AsyncClient, path: str, document: Any) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.json()) == (200, document)


async def test_the_index_lists_every_version_or_only_the_ready_ones(client: httpx.AsyncClient, tmp_path: Path) -> None:
    ready = [{"name": "digits", "version": number, "state": "READY", "reason": ""} for number in ("1", "2")]
    reason = f"{tmp_path}/bad/model.onnx is empty; fetch or export the model again"
    bad = {"name": "bad", "version": "1", "state": "UNAVAILABLE", "reason": reason}

    assert (await client.post("/v2/repository/index")).json() == [bad, *ready]
    assert (await client.post("/v2/repository/index", json={"ready": True})).json() == ready


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v2/models/q", None, 404, UNKNOWN),
        ("GET", "/v2/models/digits/versions/9", None, 404,
         "Request for unknown model: 'digits' has no version '9'; it has 1, 2"),
        ("GET", "/v2/nope", None, 404, "GET /v2/nope: Not Found; /docs lists what there is"),
        ("GET", "/v2/repository/index", None, 405,
         "GET /v2/repository/index: expected POST; /docs lists what there is"),
        ("POST", "/v2/repository/index", b"[", 400,
         "the request is no JSON: unexpected end of data: line 1 column 2 (char 1)"),
        ("POST", "/v2/repository/index", b"\r", 400,
         "the request is no JSON: input data is empty: line 1 column 1 (char 0)"),
        ("POST", "/v2/repository/index", b'{"ready": 1}', 400, "'ready' is 1, expected true or false"),
        ("POST", "/v2/repository/models/q/load", None, 404,
         "Request for unknown model: 'q' is not among the paths given to this server"),
        ("POST", "/v2/repository/models/digits/load", b'{"parameters": {"config": "{}"}}', 501,
         "a model is loaded from the paths given to this server; send no parameters"),
        ("POST", "/v1/models/digits:explain", b"{}", 501, "model 'digits' has no explainer; ask it with :predict"),
        ("POST", "/v1/models/digits/versions/1:explain", None, 501,
         "model 'digits' has no explainer; ask it with :predict"),
        ("POST", "/v1/models/digits:foo", b"{}", 404,
         "POST /v1/models/digits:foo: expected :predict or :explain; /docs lists what there is"),
        ("POST", "/v1/models/digits/versions/1:foo", b"{}", 404,
         "POST /v1/models/digits/versions/1:foo: expected :predict or :explain; /docs lists what there is"),
        ("POST", "/v1/models/digits", b"{}", 405,
         "POST /v1/models/digits: expected GET; /docs lists what there is"),
        ("POST", "/v1/models/q:explain", None, 404, UNKNOWN),
        ("POST", "/v2/repository/models/q/unload", None, 404, UNKNOWN),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_told_in_the_protocols_form(
    client: httpx.AsyncClient, method: str, path: str, body: bytes | None, status: int, message: str
) -> None:
    answer = await client.request(method, path, content=body)

    assert (answer.status_code, answer.json()) == (status, {"error": message})


async def test_a_model_that_is_not_ready_says_why(client: httpx.AsyncClient, tmp_path: Path) -> None:
    answer = await client.get("/v1/models/bad")

    assert (answer.status_code, answer.json()) == (
        503,
        {
            "error": "model 'bad' version '1' is not ready: "
            f"{tmp_path}/bad/model.onnx is empty; fetch or export the model again"
        },
    )


async def test_the_calls_are_documented(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs")).status_code == 200
    assert "/v2/repository/index" in (await client.get("/openapi.json")).json()["paths"]


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("/v2/models/stats", ["1", "2"]),
        ("/v2/models/digits/stats", ["1", "2"]),
        ("/v2/models/digits/versions/2/stats", ["2"]),
    ],
)
async def test_statistics_are_told_of_every_version_that_is_ready(
    client: httpx.AsyncClient, path: str, versions: list[str]
) -> None:
    stats = (await client.get(path)).json()["model_stats"]

    assert [(entry["name"], entry["version"], entry["execution_count"]) for entry in stats] == [
        ("digits", version, 0) for version in versions
    ]


async def test_a_model_that_is_not_ready_has_no_statistics(client: httpx.AsyncClient) -> None:
    answers = [
        (await client.get(f"/v2/models/{path}/stats")).status_code for path in ("bad", "nope", "digits/versions/9")
    ]

    assert answers == [503, 404, 404]
