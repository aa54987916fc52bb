"""What the OpenAPI document allows, and what it does not, sent to a server: the answers are those it describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving.http import openapi
from tests.conformance import expected
from tests.rig import model_server
from tests.rig.model_server import ModelServer

MODELS = ("digits", "echo", "rows", "nope")
LEFT_OUT: list[Any] = [positive_data_acceptance, not_a_server_error]
"""The document knows no model's tensors, so what it allows may well be refused; and 501 and 503 are answers."""


def document() -> dict[str, Any]:
    """The document with models that there are; without what would unload them."""
    found = openapi.document("0")
    found["paths"] = {path: operations for path, operations in found["paths"].items() if not path.endswith("/unload")}
    for operations in found["paths"].values():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = list(MODELS) if parameter["name"] == "model" else ["1", "2"]
    return found


SCHEMA = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "digits").mkdir()
    (folder / "digits" / "model.onnx").write_bytes(expected.DIGITS.read_bytes())
    x = {"name": "x", "datatype": "FP32", "shape": [-1]}
    (folder / "echo.identity.json").write_text(json.dumps({"inputs": [x]}))
    (folder / "rows.identity.json").write_text(json.dumps({"inputs": [x], "stream": True}))
    paths = [folder / "digits", folder / "echo.identity.json", folder / "rows.identity.json"]
    with model_server.running("serve", *map(str, paths)) as server:
        yield server


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=20, derandomize=True)
def test_an_operation_answers_as_it_is_described(case: schemathesis.Case[Any], server: ModelServer) -> None:
    answer = case.call_and_validate(base_url=f"http://{server.authority}", excluded_checks=LEFT_OUT)

    assert answer.status_code not in (500, 502)
