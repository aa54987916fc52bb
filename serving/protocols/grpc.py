"""The gRPC form of the Open Inference Protocol: protobuf messages to typed requests and back.

When one input is raw, all are (the protocol's rule); answers are always raw, as Triton's are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from serving import tensors
from serving.contract import GRPC_SERVICE
from serving.errors import InvalidInput
from serving.protocols import elements, options
from serving.protocols.descriptors import Messages
from serving.requests import Request, Response, Wanted
from serving.tensors import Tensor

_messages = Messages(Path(__file__).parent / "inference.binpb")

METHODS = _messages.methods(GRPC_SERVICE)
"""(request class, response class) of every method, by name."""
InferRequest = _messages.message("inference.ModelInferRequest")
InferResponse = _messages.message("inference.ModelInferResponse")
StreamInferResponse = _messages.message("inference.ModelStreamInferResponse")

_FINAL = "triton_final_response"
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Field of ``InferTensorContents`` for each datatype; those of 16 bits have none."""


def parse(kind: Any, body: bytes | bytearray | memoryview) -> Any:
    """A protobuf message of class ``kind``."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidInput(f"the request is no {kind.DESCRIPTOR.full_name} message: {error}") from error


def decode(message: Any, signature: tensors.Signature | None = None) -> Request:
    """The request in a ModelInferRequest; ``signature`` as for ``v2.decode``."""
    raw = message.raw_input_contents
    items = message.inputs
    if raw and len(raw) != len(items):
        raise InvalidInput(
            f"the request has {len(items)} inputs and {len(raw)} raw_input_contents, expected one for each input "
            "(if one input is raw, all must be)"
        )
    if not items:
        raise InvalidInput("the request has no inputs, expected at least one tensor")
    inputs = []
    try:
        for index, item in enumerate(items):
            name, datatype = item.name, item.datatype
            if item.parameters:
                options.no_shared_memory("input", name, item.parameters)
            shape = tensors.shape(name, item.shape)
            if not raw:
                array = _typed(item, shape)
            else:
                if item.HasField("contents"):
                    raise InvalidInput(f"tensor '{name}' has contents beside raw_input_contents, expected one of them")
                array = elements.from_bytes(name, datatype, shape, raw[index])
            inputs.append(Tensor(name, datatype, array))
    except InvalidInput as error:
        raise (signature and signature.mistyped((item.name, item.datatype) for item in items)) or error from error
    wanted = [_wanted(item) for item in message.outputs]
    if not message.parameters:
        return Request(message.id, inputs, wanted, True)
    parameters = _parameters(message)
    return Request(message.id, inputs, wanted, True, parameters, *options.schedule(parameters))


def _parameters(message: Any) -> dict[str, Any]:
    return {name: _value(name, parameter) for name, parameter in message.parameters.items()}


def _value(name: str, parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidInput(f"the parameter {name} has no value, expected one of the fields of InferParameter")
    return getattr(parameter, choice)


def _typed(item: Any, shape: tuple[int, ...]) -> tensors.Array:
    tensors.dtype(item.name, item.datatype)
    field = CONTENTS.get(item.datatype)
    if field is None:
        raise InvalidInput(f"tensor '{item.name}' of datatype {item.datatype} must be sent as raw_input_contents")
    return elements.from_values(item.name, item.datatype, shape, list(getattr(item.contents, field)))


def _wanted(item: Any) -> Wanted:
    if not item.parameters:
        return Wanted(item.name)
    parameters = _parameters(item)
    options.no_shared_memory("output", item.name, parameters)
    return Wanted(item.name, None, options.classes(item.name, parameters))


def encode(response: Response) -> Any:
    """The ModelInferResponse of an answer."""
    message = InferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_output_contents.append(elements.to_bytes(tensor))
    return message


def streamed(answer: Any, final: bool) -> Any:
    """An answer as a message of a stream, with Triton's word on whether it is the last to its request."""
    answer.parameters[_FINAL].bool_param = final
    return StreamInferResponse(infer_response=answer)


def wants_final(request: Request) -> bool:
    """Whether the end of several responses is to be told by a message of its own, without outputs."""
    return request.parameters.get("triton_enable_empty_final_response") is True


def final(model: str, version: str, request: Request) -> Any:
    """The message that says that all responses to a request have been given."""
    return streamed(InferResponse(model_name=model, model_version=version, id=request.id), True)
