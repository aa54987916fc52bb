"""What Triton's python backend runs: ONNX Runtime."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# The interpreter that Triton starts looks only where Python itself is installed.
sys.path += os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np
import triton_python_backend_utils as triton

from benchmarks.peers import engine


class TritonPythonModel:
    """One ONNX model."""

    def initialize(self, args: Any) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.session = engine.session(parameters["path"]["string_value"])

    def execute(self, requests: Any) -> Any:
        """One call of the engine for all ``requests`` of a batch."""
        inputs = [triton.get_input_tensor_by_name(request, engine.INPUT).as_numpy() for request in requests]
        together = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        answers = self.session.run(None, {engine.INPUT: together})[0]
        ends = np.cumsum([len(one) for one in inputs])[:-1]
        return [triton.InferenceResponse([triton.Tensor(engine.OUTPUT, answer)]) for answer in np.split(answers, ends)]
