"""Tensors of every datatype and any shape there and back through every protocol, equal to NumPy's.

What tritonclient writes and reads stands against us for V2 REST; for gRPC, V1 and generate it is NumPy itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import tritonclient.http as tritonclient
from hypothesis import given
from hypothesis import strategies as st

from serving.protocols import generate, grpc, v1, v2
from serving.requests import Request, Response
from serving.tensors import BINARY_ONLY, Array, Signature, Tensor, TensorSpec
from tests.unit.serving.protocols.test_elements import tensors_of_any_datatype


def echo(request: Request) -> Response:
    """What an identity model answers."""
    return Response("m", "1", request.id, request.inputs)


def signature(tensor: Tensor) -> Signature:
    spec = (TensorSpec(tensor.name, tensor.datatype, (-1,) * tensor.array.ndim),)
    return Signature(spec, spec)


def assert_same(found: Array, sent: Array) -> None:
    """That an array is what was sent: shape, kind and every bit; text may have become str on the way."""
    assert found.shape == sent.shape
    if sent.dtype == np.object_:
        texts = [item.encode() if isinstance(item, str) else item for item in found.ravel()]
        assert texts == sent.ravel().tolist()
    else:
        assert found.dtype == sent.dtype
        assert found.tobytes() == sent.tobytes()


@given(tensors_of_any_datatype(), st.booleans())
def test_binary_over_rest(tensor: Tensor, all_outputs: bool) -> None:
    sent = tritonclient.InferInput("t", tensor.array.shape, tensor.datatype)
    sent.set_data_from_numpy(tensor.array, binary_data=True)
    outputs = None if all_outputs else [tritonclient.InferRequestedOutput("t", binary_data=True)]
    body, length = tritonclient.InferenceServerClient.generate_request_body([sent], outputs=outputs)

    request = v2.decode(body, length)
    answer, answer_length = v2.encode(echo(request), request)

    assert_same(request.inputs[0].array, tensor.array)
    found = tritonclient.InferenceServerClient.parse_response_body(answer, header_length=answer_length)
    assert_same(found.as_numpy("t").reshape(found.get_output("t")["shape"]), tensor.array)


@given(tensors_of_any_datatype(finite=True).filter(lambda tensor: tensor.datatype not in BINARY_ONLY))
def test_json_over_rest(tensor: Tensor) -> None:
    sent = tritonclient.InferInput("t", tensor.array.shape, tensor.datatype)
    sent.set_data_from_numpy(tensor.array, binary_data=False)
    outputs = [tritonclient.InferRequestedOutput("t", binary_data=False)]
    body, length = tritonclient.InferenceServerClient.generate_request_body([sent], outputs=outputs)
    assert length is None

    request = v2.decode(body)
    answer, answer_length = v2.encode(echo(request), request)

    assert answer_length is None
    assert_same(request.inputs[0].array, tensor.array)
    found = tritonclient.InferenceServerClient.parse_response_body(answer)
    assert_same(found.as_numpy("t"), tensor.array)


@given(tensors_of_any_datatype(finite=True), st.data())
def test_json_and_binary_in_one_request_and_one_answer(tensor: Tensor, data: st.DataObject) -> None:
    sent, outputs, forms = [], [], []
    for name in ("a", "b", "c"):
        forms.append(tensor.datatype in BINARY_ONLY or data.draw(st.booleans()))
        sent.append(tritonclient.InferInput(name, tensor.array.shape, tensor.datatype))
        sent[-1].set_data_from_numpy(tensor.array, binary_data=forms[-1])
        outputs.append(
            tritonclient.InferRequestedOutput(name, binary_data=tensor.datatype in BINARY_ONLY or not forms[-1])
        )
    body, length = tritonclient.InferenceServerClient.generate_request_body(sent, outputs=outputs)

    request = v2.decode(body, length)
    answer, answer_length = v2.encode(echo(request), request)

    found = tritonclient.InferenceServerClient.parse_response_body(answer, header_length=answer_length)
    for name in ("a", "b", "c"):
        assert_same(found.as_numpy(name).reshape(found.get_output(name)["shape"]), tensor.array)


@given(tensors_of_any_datatype())
def test_a_body_without_json(tensor: Tensor) -> None:
    flat = tensor.array.ravel()[:1] if tensor.datatype == "BYTES" else tensor.array.ravel()
    if tensor.datatype == "BYTES" and not flat.size:
        flat = np.array([b""], np.object_)
    body = flat[0] if tensor.datatype == "BYTES" else flat.tobytes()

    request = v2.decode_raw(body, signature(Tensor("t", tensor.datatype, flat)))

    assert_same(request.inputs[0].array, flat)


def grpc_answer(answer: Any) -> Array:
    output = answer.outputs[0]
    kind = np.uint16 if output.datatype == "BF16" else tritonclient.triton_to_np_dtype(output.datatype)
    (raw,) = answer.raw_output_contents
    if output.datatype == "BYTES":
        flat: Array = tritonclient.deserialize_bytes_tensor(raw)
    else:
        flat = np.frombuffer(raw, kind)
    return flat.reshape(list(output.shape))


@given(tensors_of_any_datatype())
def test_raw_contents_over_grpc(tensor: Tensor) -> None:
    raw = tensor.array.tobytes()
    if tensor.datatype == "BYTES":
        raw = tritonclient.serialize_byte_tensor(tensor.array).item() if tensor.array.size else b""
    item = {"name": "t", "datatype": tensor.datatype, "shape": tensor.array.shape}
    message = grpc.InferRequest(model_name="m", inputs=[item], raw_input_contents=[raw])

    request = grpc.decode(grpc.parse(grpc.InferRequest, message.SerializeToString()))
    answer = grpc.InferResponse.FromString(grpc.encode(echo(request)).SerializeToString())

    assert_same(request.inputs[0].array, tensor.array)
    assert_same(grpc_answer(answer), tensor.array)


FIELDS = {
    "BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}  # fmt: skip


@given(tensors_of_any_datatype(finite=True).filter(lambda tensor: tensor.datatype in FIELDS))
def test_typed_contents_over_grpc(tensor: Tensor) -> None:
    contents = {FIELDS[tensor.datatype]: tensor.array.ravel().tolist()}
    item = {"name": "t", "datatype": tensor.datatype, "shape": tensor.array.shape, "contents": contents}
    message = grpc.InferRequest(model_name="m", inputs=[item])

    request = grpc.decode(grpc.parse(grpc.InferRequest, message.SerializeToString()))

    assert_same(request.inputs[0].array, tensor.array)
    assert_same(grpc_answer(grpc.encode(echo(request))), tensor.array)


def json_values(array: Array) -> Any:
    """Nested lists; bytes as text."""
    if array.dtype != np.object_:
        return array.tolist()
    return np.array([item.decode() for item in array.ravel()], np.object_).reshape(array.shape).tolist()


@given(
    tensors_of_any_datatype(finite=True).filter(
        lambda tensor: tensor.datatype not in BINARY_ONLY and tensor.array.ndim > 0 and tensor.array.size > 0
    ),
    st.booleans(),
)
def test_rows_and_columns_of_v1(tensor: Tensor, rows: bool) -> None:
    values = json_values(tensor.array)
    body = orjson.dumps({"instances" if rows else "inputs": values})

    request, in_rows = v1.decode(body, signature(tensor))
    answer = orjson.loads(v1.encode(echo(request), in_rows))

    assert_same(request.inputs[0].array, tensor.array)
    found = answer.pop("predictions" if rows else "outputs")
    assert answer == {}
    assert_same(np.array(found, tensor.array.dtype).reshape(tensor.array.shape), tensor.array)


@given(tensors_of_any_datatype(finite=True).filter(lambda tensor: tensor.datatype not in BINARY_ONLY))
def test_generate(tensor: Tensor) -> None:
    flat = Tensor("t", tensor.datatype, tensor.array.ravel())
    body = orjson.dumps({"t": json_values(tensor.array)})

    request = generate.decode(body, signature(flat))
    answer = orjson.loads(generate.encode(echo(request)))

    assert_same(request.inputs[0].array, flat.array)
    assert isinstance(answer["t"], list) == (flat.array.size != 1)
    assert_same(np.array(answer["t"], flat.array.dtype).reshape(flat.array.shape), flat.array)


@given(st.lists(st.integers(0, 2**16 - 1), max_size=6))
def test_bf16_travels_as_its_bits(bits: list[int]) -> None:
    array = np.array(bits, "<u2")
    parameters = {"binary_data_size": array.nbytes}
    head = orjson.dumps(
        {
            "inputs": [{"name": "t", "datatype": "BF16", "shape": array.shape, "parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }
    )
    request = v2.decode(head + array.tobytes(), len(head))
    answer, length = v2.encode(echo(request), request)
    item = {"name": "t", "datatype": "BF16", "shape": array.shape}
    called = grpc.decode(grpc.InferRequest(inputs=[item], raw_input_contents=[array.tobytes()]))

    assert answer[length:] == array.tobytes()
    assert_same(grpc_answer(grpc.encode(echo(called))), array)
