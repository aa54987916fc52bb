"""PyTorch programs saved by ``torch.export.save``, by torch.onnx; see ``screening`` for what is never loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils import _pytree

from serving.errors import ArtifactRefused
from serving.tensors import Array
from serving.variants.passes import base
from serving.variants.sources import Answers, screening


def convert(path: Path, folder: Path) -> Answers:
    """ArtifactRefused where a program holds more than numbers and operators, or its batch is of a fixed size."""
    torch.set_num_threads(1)
    safe = folder / "program.pt2"
    screening.screened(path, safe)
    program = torch.export.load(safe)
    safe.unlink()
    given = [one for one in program.graph.nodes if one.name in program.graph_signature.user_inputs]
    for one in given:
        shape = one.meta["val"].shape
        if not shape or isinstance(shape[0], int):
            raise ArtifactRefused(
                f"{path.name}: input {one.name} has shape {list(shape)}; export it with its first dimension free: "
                f"torch.export.export(model, inputs, dynamic_shapes={{'{one.name}': {{0: Dim('N')}}}})"
            )
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    base.write(exported.model_proto, folder / base.FILE)
    names = [one.name for one in exported.model_proto.graph.output]
    run = program.module()

    def answers(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        with torch.no_grad():
            found = run(*(torch.from_numpy(np.array(inputs[one.name])) for one in given))
        return dict(zip(names, (one.numpy() for one in _pytree.tree_leaves(found)), strict=True))

    return answers
