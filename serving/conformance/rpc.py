"""V2 over gRPC, on its own port and as HTTP/1.1 on that of REST."""

from __future__ import annotations

from typing import Any

import grpc as grpcio

from serving.conformance.checks import check, not_asked, require
from serving.conformance.target import Target, differ, outputs_of
from serving.contract import GRPC_SERVICE
from serving.protocols import grpc


@check("says over gRPC that it is alive and ready, and the model, too")
def health(target: Target) -> None:
    _has_grpc(target)
    require(target.call("ServerLive").live, "ServerLive says no")
    require(target.call("ServerReady").ready, "ServerReady says no")
    require(target.call("ModelReady", name=target.model).ready, "ModelReady says no")


@check("describes the model over gRPC as over REST")
def model_metadata(target: Target) -> None:
    _has_grpc(target)
    said = target.call("ModelMetadata", name=target.model)
    names = [spec.name for spec in target.signature.inputs]
    require([one.name for one in said.inputs] == names, f"its inputs are {[one.name for one in said.inputs]}")


@check("infers over gRPC, tensors as bytes")
def infer(target: Target) -> None:
    _has_grpc(target)
    tensors = target.sample()
    problem = differ(outputs_of(target.call("ModelInfer", target.message(tensors))), target.infer(tensors))
    require(not problem, f"the answer and that over REST: {problem}")


@check("infers over gRPC, tensors as typed contents")
def typed(target: Target) -> None:
    _has_grpc(target)
    tensors = target.sample()
    if any(one.datatype not in grpc.CONTENTS for one in tensors):
        not_asked("there are no typed contents of 16-bit floats")
    problem = differ(outputs_of(target.call("ModelInfer", target.message(tensors, raw=False))), target.infer(tensors))
    require(not problem, f"the answer and that over REST: {problem}")


@check("gives an answer over gRPC its request's id")
def identity(target: Target) -> None:
    _has_grpc(target)
    answer = target.call("ModelInfer", target.message(target.sample(), id="conformance-7"))
    require(answer.id == "conformance-7", f"the answer's id is {answer.id!r}")


@check("answers requests on one stream, in their order (ModelStreamInfer)")
def stream(target: Target) -> None:
    _has_grpc(target)
    samples = [target.sample(seed) for seed in range(3)]
    answers = target.stream([target.message(one, id=str(number)) for number, one in enumerate(samples)])
    found = [one.error_message or one.infer_response.id for one in answers]
    require(found == ["0", "1", "2"], f"it answered {found}")
    for sample, answer in zip(samples, answers, strict=True):
        problem = differ(outputs_of(answer.infer_response), target.infer(sample))
        require(not problem, f"an answer on the stream and that over REST: {problem}")


@check("shows configuration and statistics over gRPC, as perf_analyzer reads them")
def configuration(target: Target) -> None:
    _has_grpc(target)
    require(target.call("ModelConfig", name=target.model).config.name == target.model, "the configuration has no name")
    require(target.call("ModelStatistics", name=target.model).model_stats, "there are no statistics")


@check("takes calls packed by gzip")
def packed(target: Target) -> None:
    _has_grpc(target)
    assert target.channel is not None
    request, answer = grpc.METHODS["ModelReady"]
    call: Any = target.channel.unary_unary(
        f"/{GRPC_SERVICE}/ModelReady", lambda said: said.SerializeToString(), answer.FromString
    )
    said = call(request(name=target.model), timeout=target.timeout_s, compression=grpcio.Compression.Gzip)
    require(said.ready, "ModelReady says no")


@check("answers unary gRPC as HTTP/1.1 on the port of REST (grpcOverHttp1), which our router prefers")
def over_http1(target: Target) -> None:
    tensors = target.sample()
    body = target.message(tensors).SerializeToString()
    answer = target.http.post(
        f"{target.base}/{GRPC_SERVICE}/ModelInfer",
        content=b"\0" + len(body).to_bytes(4, "big") + body,
        headers={"content-type": "application/grpc", "te": "trailers"},
    )
    require(answer.headers.get("content-type", "").startswith("application/grpc"), f"it answered {answer.status_code}")
    require(len(answer.content) > 5, f"it answered with status {answer.headers.get('grpc-status', 'unknown')}")
    problem = differ(outputs_of(grpc.InferResponse.FromString(answer.content[5:])), target.infer(tensors))
    require(not problem, f"the answer and that over REST: {problem}")


def _has_grpc(target: Target) -> None:
    if target.channel is None:
        not_asked("no address of gRPC was given")
