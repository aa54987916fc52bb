"""KServe's model server with a custom model, its settings as they are."""

from __future__ import annotations

from typing import Any

from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

from benchmarks.peers import engine

asked = engine.asked()


class Onnx(Model):
    """One ONNX model."""

    def load(self) -> bool:
        self.session = engine.session(asked.path)
        self.ready = True
        return True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        answer = self.session.run(None, {engine.INPUT: payload.inputs[0].as_numpy()})[0]
        output = InferOutput(engine.OUTPUT, list(answer.shape), "FP32")
        wanted = payload.request_outputs or []
        output.set_data_from_numpy(answer, payload.from_grpc or any(one.binary_data for one in wanted))
        return InferResponse(
            payload.id or generate_uuid(),
            self.name,
            [output],
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    model = Onnx(asked.name)
    model.load()
    ModelServer(http_port=asked.http_port, grpc_port=asked.grpc_port, workers=1).start([model])
