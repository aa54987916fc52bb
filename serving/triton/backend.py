"""What Triton's Python backend runs, in a process of its own: one engine of this package.

Tensors go in and out by DLPack, which has a stated layout: the backend was built against NumPy 1 and reads sizes of
NumPy 2's arrays where they are no more.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import triton_python_backend_utils as triton

from serving.engines import artifact
from serving.engines.base import Interrupt
from serving.errors import InvalidInput, ServingError
from serving.models import warming
from serving.settings import Settings
from serving.tensors import Array
from serving.triton import repository


class TritonPythonModel:
    """One artifact in its engine; Triton finds the class by this name and calls it from one thread."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the artifact and warms it up; what it raises is why Triton does not serve the model."""
        config = json.loads(args["model_config"])
        path = Path(config["parameters"]["path"]["string_value"])
        said = msgspec.json.decode(config["parameters"]["settings"]["string_value"], type=Settings)
        self._limit_s = said.limits.execution_s
        self._has_batches = config["max_batch_size"] > 0
        # Open for as long as this process lives.
        folder = Path(args["model_repository"])
        self._alive = (folder.parents[1] / repository.ALIVE / folder.name).open("wb")
        self._engine = artifact.load(path, said)
        warming.run(self._engine, path, said)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request; one call of the engine for all of them where they may share it."""
        signature = self._engine.signature
        tensors = [{tensor.name(): np.from_dlpack(tensor) for tensor in request.inputs()} for request in requests]
        names = [spec.name for spec in signature.outputs]
        if len(requests) > 1 and self._has_batches:
            try:
                together = {spec.name: np.concatenate([of[spec.name] for of in tensors]) for spec in signature.inputs}
                ends = np.cumsum([len(of[signature.inputs[0].name]) for of in tensors])[:-1]
                parts = zip(*(np.split(array, ends) for array in self._infer(together, names)), strict=True)
                return [
                    _response(request, dict(zip(names, part, strict=True)))
                    for request, part in zip(requests, parts, strict=True)
                ]
            except ServingError:
                pass  # each by itself, so that one that cannot be computed fails alone
        return [self._answer(request, of, names) for request, of in zip(requests, tensors, strict=True)]

    def finalize(self) -> None:
        """Frees the engine."""
        self._engine.close()

    def _answer(self, request: Any, inputs: Mapping[str, Array], names: Sequence[str]) -> Any:
        wanted = [name for name in names if name in request.requested_output_names()]
        try:
            return _response(request, dict(zip(wanted, self._infer(inputs, wanted), strict=True)))
        except ServingError as error:
            code = triton.TritonError.INVALID_ARG if isinstance(error, InvalidInput) else triton.TritonError.INTERNAL
            return triton.InferenceResponse([], triton.TritonError(str(error), code))

    def _infer(self, inputs: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
        interrupt = Interrupt()
        timer = threading.Timer(self._limit_s, interrupt.fire)
        timer.start()
        try:
            return self._engine.infer(inputs, names, interrupt)
        finally:
            timer.cancel()


def _response(request: Any, outputs: Mapping[str, Array]) -> Any:
    wanted = request.requested_output_names()
    return triton.InferenceResponse(
        [triton.Tensor.from_dlpack(name, _plain(array)) for name, array in outputs.items() if name in wanted]
    )


def _plain(array: Array) -> Array:
    """The same as DLPack and Triton take it: writable, and with C's strides also where a size of 0 or 1 frees them."""
    strides = [array.itemsize * math.prod(array.shape[place + 1 :]) for place in range(array.ndim)]
    array = array if array.flags.writeable else array.copy()
    return array if list(array.strides) == strides else np.lib.stride_tricks.as_strided(array, strides=strides)
