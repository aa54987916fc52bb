"""grpcio with one worker thread: the fastest of its ways to serve one core."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.peers import engine

asked = engine.asked()
session = engine.session(asked.path)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Raw tensors in and out."""

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        given = request.inputs[0]
        tensor = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(list(given.shape))
        answer = session.run(None, {engine.INPUT: tensor})[0]
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        response.outputs.add(name=engine.OUTPUT, datatype="FP32", shape=answer.shape)
        response.raw_output_contents.append(answer.tobytes())
        return response


if __name__ == "__main__":
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(1), options=unlimited)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    server.add_insecure_port(f"127.0.0.1:{asked.grpc_port}")
    server.start()
    server.wait_for_termination()
