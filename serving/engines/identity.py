"""An engine that answers each input as an output of the same name: for tests of everything around it.

Its artifact is a small JSON file, ``NAME.identity.json``::

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}

With ``"stream": true`` beside the inputs each row is a response of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import orjson

from serving import tensors
from serving.engines import base
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InferenceFailed, InvalidInput
from serving.settings import DEFAULT, Settings
from serving.tensors import Array, Signature, TensorSpec


class IdentityEngine:
    """Echoes its inputs."""

    platform = "penstock_identity"
    may_loop = False
    may_block = False
    problem = ""

    def __init__(self, specs: tuple[TensorSpec, ...]) -> None:
        self.signature = Signature(inputs=specs, outputs=specs)

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """The inputs named by ``outputs``."""
        return [inputs[name] for name in outputs]

    def close(self) -> None:
        """Nothing is held."""


class StreamingIdentityEngine(IdentityEngine):
    """Echoes its inputs row by row, each as a response with one row."""

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """The one row there is; InvalidInput when there are several, or none."""
        return base.once(self.stream(inputs, outputs, interrupt or Interrupt()))

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt
    ) -> Generator[list[Array], None, None]:
        """One response a row; InvalidInput when the inputs have different numbers of them."""
        rows = {array.shape[0] for array in inputs.values()}
        if len(rows) != 1:
            raise InvalidInput(f"the inputs have {sorted(rows)} rows, expected the same number in each")
        for row in range(rows.pop()):
            if interrupt.fired:
                raise InferenceFailed(f"interrupted after {row} rows")
            yield [inputs[name][row : row + 1] for name in outputs]


def load(path: Path, said: Settings = DEFAULT, shared: Path | None = None) -> IdentityEngine:
    """The engine described by a JSON file."""
    try:
        document = orjson.loads(path.read_bytes())
        specs = tuple(TensorSpec(item["name"], item["datatype"], tuple(item["shape"])) for item in document["inputs"])
        streams = document.get("stream", False)
        if type(streams) is not bool or (streams and any(spec.shape[:1] != (-1,) for spec in specs)):
            raise ValueError("'stream' must be true or false, and true needs -1 first in each shape")
        for spec in specs:
            tensors.dtype(spec.name, spec.datatype)
            tensors.shape(spec.name, [0 if size == -1 else size for size in spec.shape])
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise ArtifactRefused(
            f'{path} describes no identity model ({error}); expected {{"inputs": [{{"name", "datatype", "shape"}}]}}'
        ) from error
    if not specs:
        raise ArtifactRefused(f"{path} names no inputs; expected at least one")
    return StreamingIdentityEngine(specs) if streams else IdentityEngine(specs)
