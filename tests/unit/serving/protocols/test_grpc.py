from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput, Unsupported
from serving.protocols import elements, grpc
from serving.requests import Response, Wanted
from serving.tensors import Signature, Tensor, TensorSpec
from tests.unit.serving.protocols.test_elements import tensors_of_any_datatype

CONTENTS = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, -1.5]),
    "FP64": ("fp64_contents", [0.1, -1e300]),
    "BYTES": ("bytes_contents", [b"", b"\xff\0"]),
}


def message(*tensors: dict[str, Any], **fields: Any) -> Any:
    return grpc.InferRequest(model_name="digits", inputs=tensors, **fields)


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_become_tensors(datatype: str) -> None:
    field, values = CONTENTS[datatype]

    request = grpc.decode(message({"name": "x", "datatype": datatype, "shape": [2], "contents": {field: values}}))

    assert [(t.name, t.datatype, t.array.tolist()) for t in request.inputs] == [("x", datatype, values)]


@given(st.lists(tensors_of_any_datatype(), min_size=1, max_size=3))
def test_raw_contents_become_the_tensors_they_were(tensors: list[Tensor]) -> None:
    request = grpc.decode(
        message(
            *({"name": "t", "datatype": t.datatype, "shape": t.array.shape} for t in tensors),
            raw_input_contents=[elements.to_bytes(t) for t in tensors],
        )
    )

    assert [elements.to_bytes(t) for t in request.inputs] == [elements.to_bytes(t) for t in tensors]
    assert [t.array.shape for t in request.inputs] == [t.array.shape for t in tensors]


def test_outputs_asked_for_are_taken_over() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1]}}

    classes = {"name": "z", "parameters": {"classification": {"int64_param": 3}}}
    request = grpc.decode(message(tensor, id="7", outputs=[{"name": "y"}, classes]))

    assert (request.id, request.outputs) == ("7", [Wanted("y"), Wanted("z", None, 3)])


FP32 = {"name": "x", "datatype": "FP32", "shape": [1]}


@pytest.mark.parametrize(
    ("request_message", "error"),
    [
        (message(), "the request has no inputs, expected at least one tensor"),
        (
            message(FP32, FP32, raw_input_contents=[b"\0" * 4]),
            "the request has 2 inputs and 1 raw_input_contents, expected one for each input "
            "(if one input is raw, all must be)",
        ),
        (
            message({**FP32, "contents": {"fp32_contents": [1]}}, raw_input_contents=[b"\0" * 4]),
            "tensor 'x' has contents beside raw_input_contents, expected one of them",
        ),
        (message(FP32), "tensor 'x' has 0 elements, expected 1 for shape [1]"),
        (
            message({**FP32, "contents": {"fp64_contents": [1]}}),
            "tensor 'x' has 0 elements, expected 1 for shape [1]",
        ),
        (
            message({**FP32, "datatype": "FP16", "contents": {"fp32_contents": [1]}}),
            "tensor 'x' of datatype FP16 must be sent as raw_input_contents",
        ),
        (
            message({**FP32, "datatype": "INT8", "contents": {"int_contents": [128]}}),
            "tensor 'x' holds 128, expected values of datatype INT8 (-128 to 127)",
        ),
        (
            message({**FP32, "shape": [-1]}, raw_input_contents=[b""]),
            "tensor 'x' has shape [-1], expected whole numbers from 0 up",
        ),
    ],
)
def test_a_message_that_cannot_be_is_refused_with_the_tensors_name(request_message: Any, error: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        grpc.decode(request_message)

    assert str(refused.value) == error


def test_shared_memory_is_said_to_be_missing() -> None:
    with pytest.raises(Unsupported) as refused:
        grpc.decode(message({**FP32, "parameters": {"shared_memory_region": {"string_param": "r"}}}))

    assert str(refused.value) == "input 'x' names shared memory, which this server does not have"


def test_an_answer_is_raw() -> None:
    answer = grpc.encode(Response("digits", "3", "7", [Tensor("y", "FP32", np.array([[1.5]], np.float32))]))

    assert answer == grpc.InferResponse(
        model_name="digits",
        model_version="3",
        id="7",
        outputs=[{"name": "y", "datatype": "FP32", "shape": [1, 1]}],
        raw_output_contents=[np.array([1.5], "<f4").tobytes()],
    )


@given(st.binary(max_size=100))
def test_whatever_bytes_come_are_decoded_or_refused(body: bytes) -> None:
    try:
        grpc.decode(grpc.parse(grpc.InferRequest, body))
    except (InvalidInput, Unsupported):
        return


def test_parameters_travel_with_their_request_whatever_their_type() -> None:
    parameters = {
        "priority": {"uint64_param": 2},
        "timeout": {"int64_param": 1500},
        "sequence_id": {"string_param": "s"},
        "sequence_start": {"bool_param": True},
        "temperature": {"double_param": 0.5},
    }

    request = grpc.decode(message({**FP32, "contents": {"fp32_contents": [1]}}, parameters=parameters))

    assert request.parameters == {
        "priority": 2, "timeout": 1500, "sequence_id": "s", "sequence_start": True, "temperature": 0.5,
    }  # fmt: skip
    assert (request.priority, request.timeout_s) == (2, 0.0015)


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^the parameter p has no value, expected one of the fields"):
        grpc.decode(message({**FP32, "contents": {"fp32_contents": [1]}}, parameters={"p": {}}))


def test_a_tensor_that_cannot_be_read_is_first_held_against_the_models_datatype() -> None:
    message = grpc.InferRequest(inputs=[{"name": "x", "datatype": "FLOAT", "shape": [1]}])

    with pytest.raises(InvalidInput) as refused:
        grpc.decode(message, Signature((TensorSpec("x", "FP32", (1,)),), ()))

    assert str(refused.value) == "input 'x' has datatype 'FLOAT', the model expects FP32"
