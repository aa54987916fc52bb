"""An engine that answers each input as an output of the same name: for tests of everything around it.

Its artifact is a small JSON file, ``NAME.identity.json``::

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from serving import tensors
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InvalidInput
from serving.tensors import Array, Signature, TensorSpec


class IdentityEngine:
    """Echoes its inputs."""

    platform = "penstock_identity"
    may_loop = False
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


def load(path: Path) -> IdentityEngine:
    """The engine described by a JSON file."""
    try:
        document = orjson.loads(path.read_bytes())
        specs = tuple(TensorSpec(item["name"], item["datatype"], tuple(item["shape"])) for item in document["inputs"])
        for spec in specs:
            tensors.dtype(spec.name, spec.datatype)
            tensors.shape(spec.name, [0 if size == -1 else size for size in spec.shape])
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise ArtifactRefused(
            f'{path} describes no identity model ({error}); expected {{"inputs": [{{"name", "datatype", "shape"}}]}}'
        ) from error
    if not specs:
        raise ArtifactRefused(f"{path} names no inputs; expected at least one")
    return IdentityEngine(specs)
