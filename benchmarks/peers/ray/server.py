"""Ray Serve with one replica and no access log. It starts some eleven processes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import orjson
import ray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions
from starlette.requests import Request
from starlette.responses import Response
from tritonclient.grpc import service_pb2

from benchmarks.peers import engine

_LENGTH = "inference-header-content-length"


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Onnx:
    """One ONNX model."""

    def __init__(self, path: str) -> None:
        self.session = engine.session(path)

    async def __call__(self, request: Request) -> Response:
        """V2 REST, JSON or with binary tensors."""
        body = await request.body()
        length = request.headers.get(_LENGTH)
        if length is None:
            given = orjson.loads(body)["inputs"][0]
            answer = self._run(np.array(given["data"], np.float32).reshape(given["shape"]))
            output = {"name": engine.OUTPUT, "datatype": "FP32", "shape": answer.shape, "data": answer.ravel()}
            return Response(
                orjson.dumps({"outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
            )
        given = orjson.loads(body[: int(length)])["inputs"][0]
        answer = self._run(np.frombuffer(body, np.float32, offset=int(length)).reshape(given["shape"]))
        size = {"binary_data_size": answer.nbytes}
        output = {"name": engine.OUTPUT, "datatype": "FP32", "shape": answer.shape, "parameters": size}
        head = orjson.dumps({"outputs": [output]})
        headers = {_LENGTH: str(len(head))}
        return Response(head + answer.tobytes(), media_type="application/octet-stream", headers=headers)

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        """V2 gRPC, raw tensors."""
        given = request.inputs[0]
        answer = self._run(np.frombuffer(request.raw_input_contents[0], np.float32).reshape(list(given.shape)))
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=engine.OUTPUT, datatype="FP32", shape=answer.shape)
        response.raw_output_contents.append(answer.tobytes())
        return response

    def _run(self, tensor: Any) -> Any:
        return self.session.run(None, {engine.INPUT: tensor})[0]


if __name__ == "__main__":
    asked = engine.asked()
    # More than the machine may have: an actor asks for a processor, and all of them share what is there.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    adders = ["tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"]
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=asked.http_port),
        grpc_options=gRPCOptions(port=asked.grpc_port, grpc_servicer_functions=adders),
    )
    deployment: Any = Onnx
    quiet = deployment.options(logging_config={"enable_access_log": False, "log_level": "ERROR"})
    serve.run(quiet.bind(str(asked.path)), route_prefix="/")
    threading.Event().wait()
