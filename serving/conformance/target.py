"""The server under test as its clients see it: over REST and gRPC, with inputs drawn from what its model says."""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc as grpcio
import httpx
import numpy as np

from serving.contract import GRPC_SERVICE, STREAM_METHOD
from serving.errors import InvalidInput, ServingError
from serving.protocols import elements, grpc
from serving.tensors import BINARY_ONLY, DTYPES, Array, Signature, Tensor, TensorSpec

LENGTH_HEADER = "inference-header-content-length"
_URL = re.compile(r"^(?P<server>https?://[^/]+(/.*)?)/v2/models/(?P<model>[^/]+)/?$")
_CONNECT_S = 5.0
_OPEN = 2
"""Size of a free dimension other than the first."""


class Unreachable(ServingError):
    """Nobody answers there, or not as a server of the Open Inference Protocol does."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a server is."""

    url: str
    """Of the model: ``http://HOST:PORT/v2/models/NAME``."""
    grpc: str | None = None
    """``HOST:PORT`` of gRPC over HTTP/2; None: the server has none."""
    metrics: str | None = None
    """URL of its metrics; None: ``/metrics`` where REST is."""
    timeout_s: float = 30.0
    inputs: Path | None = None
    """An .npz with an array for each input, several rows long; None: inputs are drawn."""


class Target:
    """One model of the server. ``close`` it at the end."""

    def __init__(self, place: Place) -> None:
        """Unreachable where metadata cannot be read, InvalidInput where ``place`` names no model or no inputs."""
        found = _URL.match(place.url)
        if found is None:
            raise InvalidInput(f"'{place.url}' is no URL of a model, expected http://HOST:PORT/v2/models/NAME")
        self.base = found["server"]
        self.model = urllib.parse.unquote(found["model"])
        self.timeout_s = place.timeout_s
        self.metrics_url = place.metrics or f"{self.base}/metrics"
        self.http = httpx.Client(timeout=place.timeout_s, headers={"accept-encoding": "identity"})
        self.channel = None if place.grpc is None else grpcio.insecure_channel(place.grpc)
        try:
            self._reach_grpc(place.grpc)
            self.metadata = self._described(place.url)
            self.signature = Signature(_specs(self.metadata["inputs"]), _specs(self.metadata["outputs"]))
            self._given = None if place.inputs is None else _read(place.inputs, self.signature)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends its connections."""
        self.http.close()
        if self.channel is not None:
            self.channel.close()

    def _reach_grpc(self, address: str | None) -> None:
        if self.channel is None:
            return
        try:
            grpcio.channel_ready_future(self.channel).result(min(self.timeout_s, _CONNECT_S))
        except grpcio.FutureTimeoutError as error:
            raise Unreachable(
                f"nobody speaks gRPC at {address}; give --grpc HOST:PORT as the server says it, or leave it out"
            ) from error

    def _described(self, url: str) -> Mapping[str, Any]:
        try:
            answer = self.http.get(url)
        except httpx.HTTPError as error:
            raise Unreachable(f"{url} does not answer ({error}); start the server, or check host and port") from error
        try:
            said: Mapping[str, Any] = answer.json()
            _specs(said["inputs"]), _specs(said["outputs"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unreachable(
                f"{url} answered {answer.status_code} and no metadata of a model ({answer.text[:200]!r}); "
                "check the model's name, and that the server speaks the Open Inference Protocol over REST"
            ) from error
        return said

    @property
    def takes_rows(self) -> bool:
        """Whether the first dimension of everything is free."""
        specs = (*self.signature.inputs, *self.signature.outputs)
        return all(spec.shape and spec.shape[0] == -1 for spec in specs)

    @property
    def takes_json(self) -> bool:
        """Whether JSON can carry what the model takes and gives."""
        return not any(spec.datatype in BINARY_ONLY for spec in (*self.signature.inputs, *self.signature.outputs))

    def path(self, end: str = "") -> str:
        """URL of the model, or of something of it."""
        return f"{self.base}/v2/models/{urllib.parse.quote(self.model)}{end}"

    def sample(self, seed: int = 0, rows: int = 1) -> list[Tensor]:
        """Inputs that the model takes: the same for the same seed, and other ones for another."""
        rng = np.random.default_rng(seed)
        if self._given is not None:
            at = rng.integers(min(len(array) for array in self._given.values()), size=rows)
            return [Tensor(spec.name, spec.datatype, self._given[spec.name][at]) for spec in self.signature.inputs]
        return [Tensor(spec.name, spec.datatype, _drawn(spec, rows, rng)) for spec in self.signature.inputs]

    def document(self, tensors: Sequence[Tensor], **more: Any) -> dict[str, Any]:
        """The request in JSON."""
        given = [
            {
                "name": one.name,
                "shape": list(one.array.shape),
                "datatype": one.datatype,
                "data": [item.decode() if isinstance(item, bytes) else item for item in one.array.ravel().tolist()],
            }
            for one in tensors
        ]
        return {"inputs": given, **more}

    def post(self, document: Any, **options: Any) -> httpx.Response:
        """Asks for an inference by JSON."""
        return self.http.post(self.path("/infer"), json=document, **options)

    def binary(self, tensors: Sequence[Tensor], **more: Any) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the request with its tensors as bytes behind the JSON."""
        raw = [elements.to_bytes(one) for one in tensors]
        given = [
            {
                "name": one.name,
                "shape": list(one.array.shape),
                "datatype": one.datatype,
                "parameters": {"binary_data_size": len(part)},
            }
            for one, part in zip(tensors, raw, strict=True)
        ]
        head = json.dumps({"inputs": given, **more}).encode()
        return b"".join([head, *raw]), {LENGTH_HEADER: str(len(head)), "content-type": "application/octet-stream"}

    def post_binary(self, tensors: Sequence[Tensor], **more: Any) -> httpx.Response:
        """Asks for an inference by bytes, and for bytes."""
        body, headers = self.binary(tensors, **more)
        return self.http.post(self.path("/infer"), content=body, headers=headers)

    def infer(self, tensors: Sequence[Tensor]) -> dict[str, Array]:
        """Outputs by name, however they can be had over REST; Unreachable where they cannot."""
        if self.takes_json:
            answer = self.post(self.document(tensors))
        else:
            answer = self.post_binary(tensors, parameters={"binary_data_output": True})
        if answer.status_code != 200:
            raise Unreachable(f"an inference was answered with {answer.status_code}: {answer.text[:200]}")
        return outputs(answer)

    def message(self, tensors: Sequence[Tensor], *, raw: bool = True, **fields: Any) -> Any:
        """The request of gRPC."""
        said = grpc.InferRequest(model_name=self.model, **fields)
        for one in tensors:
            item = said.inputs.add(name=one.name, datatype=one.datatype, shape=one.array.shape)
            if raw:
                said.raw_input_contents.append(elements.to_bytes(one))
            else:
                getattr(item.contents, grpc.CONTENTS[one.datatype]).extend(one.array.ravel().tolist())
        return said

    def call(self, method: str, message: Any = None, **fields: Any) -> Any:
        """The answer to a unary call of gRPC; RpcError when it is none."""
        assert self.channel is not None
        request, answer = grpc.METHODS[method]
        call: Any = self.channel.unary_unary(
            f"/{GRPC_SERVICE}/{method}", lambda said: said.SerializeToString(), answer.FromString
        )
        return call(request(**fields) if message is None else message, timeout=self.timeout_s)

    def stream(self, messages: Sequence[Any]) -> list[Any]:
        """The answers on one stream, one for each message."""
        assert self.channel is not None
        call: Any = self.channel.stream_stream(
            f"/{GRPC_SERVICE}/{STREAM_METHOD}",
            lambda said: said.SerializeToString(),
            grpc.StreamInferResponse.FromString,
        )
        return list(call(iter(messages), timeout=self.timeout_s))


def outputs(answer: httpx.Response) -> dict[str, Array]:
    """The tensors in an answer over REST, whichever way each came."""
    length = answer.headers.get(LENGTH_HEADER)
    head = answer.content if length is None else answer.content[: int(length)]
    at, found = len(head), {}
    for one in json.loads(head)["outputs"]:
        size = (one.get("parameters") or {}).get("binary_data_size")
        shape = tuple(one["shape"])
        if size is None:
            found[one["name"]] = elements.from_values(one["name"], one["datatype"], shape, one["data"])
        else:
            found[one["name"]] = elements.from_bytes(
                one["name"], one["datatype"], shape, answer.content[at : at + size]
            )
            at += size
    return found


def outputs_of(answer: Any) -> dict[str, Array]:
    """The tensors in an answer over gRPC."""
    if answer.raw_output_contents:
        pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {one.name: elements.from_bytes(one.name, one.datatype, tuple(one.shape), raw) for one, raw in pairs}
    return {
        one.name: np.array(getattr(one.contents, grpc.CONTENTS[one.datatype]), DTYPES[one.datatype]).reshape(one.shape)
        for one in answer.outputs
    }


def differ(one: Mapping[str, Array], other: Mapping[str, Array]) -> str:
    """What is not the same in two answers, as the end of "…, but "; empty where they agree.

    Floats may differ by what another order of sums makes: the rows of a batch are not computed as one alone.
    """
    if one.keys() != other.keys():
        return f"has {sorted(one)} and {sorted(other)}"
    for name, array in one.items():
        against = other[name]
        if array.shape != against.shape or array.dtype != against.dtype:
            return f"output '{name}' is {array.dtype} {array.shape} and {against.dtype} {against.shape}"
        if array.dtype.kind != "f":
            if array.tolist() != against.tolist():
                return f"output '{name}' has other values"
        elif not np.allclose(array, against, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(array).max(initial=0)))):
            return f"output '{name}' is off by {np.abs(array.astype(np.float64) - against).max():.3g}"
    return ""


def _specs(said: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(one["name"], one["datatype"], tuple(map(int, one["shape"]))) for one in said)


def _drawn(spec: TensorSpec, rows: int, rng: np.random.Generator) -> Array:
    shape = tuple(size if size != -1 else _OPEN if place else rows for place, size in enumerate(spec.shape))
    if spec.datatype == "BYTES":
        texts = np.empty(shape, np.object_)
        texts.ravel()[:] = [b"%d" % number for number in rng.integers(10, size=texts.size)]
        return texts
    dtype = DTYPES[spec.datatype]
    # Whole numbers may be places in a table of any length.
    return (rng.random(shape) if dtype.kind == "f" else rng.integers(2, size=shape)).astype(dtype)


def _read(path: Path, signature: Signature) -> dict[str, Array]:
    names = [spec.name for spec in signature.inputs]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {spec.name: file[spec.name].astype(DTYPES[spec.datatype], copy=False) for spec in signature.inputs}
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"{path} gives no inputs ({error}); expected an .npz with an array for each of {', '.join(names)}"
        ) from error
    return arrays
