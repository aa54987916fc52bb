"""Each parser, and what may come of any bytes: an answer or an error of ours, never anything else.

A target is called with the bytes alone and raises whatever was not meant to happen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serving import settings, tensors
from serving.engines import identity, onnx_screen
from serving.errors import ServingError
from serving.http import coding, grpc_wire
from serving.protocols import elements, generate, grpc, v1, v2
from serving.requests import Request, Response
from serving.tensors import Signature, TensorSpec

Target = Callable[[bytes], None]

_LIMIT = 2**20
_SIGNATURE = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("x", "FP32", (-1,)),))
_SIGNATURES = (
    _SIGNATURE,
    Signature((TensorSpec("t", "BYTES", (-1, 2)), TensorSpec("n", "INT64", (-1,))), ()),
    Signature((TensorSpec("b", "BOOL", (2, -1, -1)),), ()),
)


def _held(request: Request) -> None:
    """What decoding promises of every tensor: an array of its datatype that can be written as its bytes."""
    for tensor in request.inputs:
        array = tensor.array
        assert array.dtype == tensors.DTYPES[tensor.datatype], (tensor.datatype, array.dtype)
        assert array.flags.c_contiguous
        assert array.flags.aligned
        back = elements.from_bytes(tensor.name, tensor.datatype, array.shape, elements.to_bytes(tensor))
        assert np.array_equal(array, back, equal_nan=tensor.datatype in ("FP16", "FP32", "FP64"))
    assert request.timeout_s is None or request.timeout_s >= 0


def v2_json(data: bytes) -> None:
    """V2 as JSON alone."""
    request = v2.decode(data)
    _held(request)
    v2.encode(Response("m", "1", request.id, request.inputs), request)


def v2_binary(data: bytes) -> None:
    """V2 with bytes behind the JSON; the first two bytes say how long that is, and zero is the raw form."""
    length = int.from_bytes(data[:2], "little")
    if length:
        request = v2.decode(data[2:], length)
    else:
        request = v2.decode_raw(data[3:], _SIGNATURES[sum(data[2:3]) % len(_SIGNATURES)])
    _held(request)
    v2.encode(Response("m", "1", request.id, request.inputs), request)


def v1_json(data: bytes) -> None:
    """V1, against the signature that the first byte chooses."""
    signature = _SIGNATURES[sum(data[:1]) % len(_SIGNATURES)]
    request, rows = v1.decode(data[1:], signature)
    _held(request)
    v1.encode(Response("m", "1", "", request.inputs), rows)


def generate_json(data: bytes) -> None:
    """Triton's generate extension, against the signature that the first byte chooses."""
    request = generate.decode(data[1:], _SIGNATURES[sum(data[:1]) % len(_SIGNATURES)])
    _held(request)
    generate.event(generate.encode(Response("m", "1", request.id, request.inputs)))


def grpc_message(data: bytes) -> None:
    """A ModelInferRequest."""
    message = grpc.parse(grpc.InferRequest, data)
    request = grpc.decode(message)
    _held(request)
    grpc.encode(Response("m", "1", request.id, request.inputs)).SerializeToString()


def grpc_methods(data: bytes) -> None:
    """The message of any method, which the first byte chooses."""
    kinds = [request for request, _ in grpc.METHODS.values()]
    grpc.parse(kinds[sum(data[:1]) % len(kinds)], data[1:])


def grpc_framing(data: bytes) -> None:
    """GRPC's prefix and compression; the first byte chooses the coding, the next nine are a time limit."""
    grpc_wire.timeout_s(data[1:10].rstrip(b" "))
    encoding = ("", "identity", "gzip", "deflate", "snappy")[sum(data[:1]) % 5]
    assert len(grpc_wire.message(data[10:], encoding, _LIMIT)) <= max(_LIMIT, len(data))


def content_coding(data: bytes) -> None:
    """Gzip and deflate."""
    name = ("gzip", "deflate", "br")[sum(data[:1]) % 3]
    coding.accepted(data[1:40].decode("latin-1"))
    plain = coding.unpack(data[1:], name, _LIMIT)
    assert len(plain) <= _LIMIT
    assert coding.unpack(coding.pack(plain, name), name, _LIMIT) == plain


def model_settings(data: bytes) -> None:
    """``penstock.json``."""
    settings.merged(settings.parse(data, "the document"), {"limits": {"timeout": "1s"}})


def identity_model(data: bytes) -> None:
    """The artifact of the identity engine."""
    engine = identity.load(_written(data))
    assert engine.signature.inputs


def onnx_file(data: bytes) -> None:
    """The walk over an ONNX file."""
    if data:
        onnx_screen.screen(_written(data))


_folder = tempfile.TemporaryDirectory(prefix="penstock-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def _written(data: bytes) -> Path:
    path = Path(_folder.name) / "artifact"
    path.write_bytes(data)
    return path


def _refusing(target: Target) -> Target:
    def judged(data: bytes) -> None:
        try:
            target(data)
        except ServingError as error:
            if error.http not in (400, 413, 501) or not str(error):
                raise  # any other is not the client's fault

    judged.__doc__ = target.__doc__
    return judged


TARGETS: dict[str, Target] = {
    target.__name__: _refusing(target)
    for target in (
        v2_json,
        v2_binary,
        v1_json,
        generate_json,
        grpc_message,
        grpc_methods,
        grpc_framing,
        content_coding,
        model_settings,
        identity_model,
        onnx_file,
    )
}
