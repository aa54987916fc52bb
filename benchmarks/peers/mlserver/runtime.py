"""What MLServer runs for a model: ONNX Runtime."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

from benchmarks.peers import engine


class Onnx(MLModel):
    """One ONNX model."""

    async def load(self) -> bool:
        self.session = engine.session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: Any) -> Any:
        tensor = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        answer = self.session.run(None, {engine.INPUT: tensor.astype("float32", copy=False)})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(engine.OUTPUT, answer)])
