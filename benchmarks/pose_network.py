"""The pose example's network at 640 x 640 pixels and with 3.3 million weights, untrained: a Model to build variants of.

What a network costs does not depend on what it learnt. It is made by PyTorch from a seed, in the builder's own
toolchain, and calibrated on the example's pictures, enlarged.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from serving.variants import toolchains

NAME = "pose-640"
_SIDE = 640
_PICTURES = 16
_POSE = Path(__file__).parents[1] / "examples" / "pose"
_MAKING = """
import pathlib, sys, torch, network
torch.set_num_threads(1)
torch.manual_seed(1)
side = int(sys.argv[1])
network.export(network.PoseNet(side, network.NANO).eval(), side, pathlib.Path(sys.argv[2]))
"""


def written(folder: Path) -> Path:
    """The manifest of the Model, with its files beside it."""
    command = [str(toolchains.python("torch")), "-c", _MAKING, str(_SIDE), str(folder / "model.onnx")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(_POSE)}, stderr=subprocess.DEVNULL)
    with np.load(_POSE / "calibration.npz") as samples:
        pictures = samples["x"][:_PICTURES]
    nearest = np.arange(_SIDE) * pictures.shape[-1] // _SIDE
    np.savez(folder / "calibration.npz", x=pictures[:, :, nearest][..., nearest])
    calibration = {"uri": "calibration.npz"}

    def int8(name: str, **said: Any) -> dict[str, Any]:
        return {"name": name, "passes": [{"quantize": {"calibration": calibration, **said}}]}

    model = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": NAME},
        "spec": {
            "source": {"uri": "model.onnx"},
            "variants": [{"name": "fp32"}, int8("int8"), int8("int8-one-scale", perChannel=False)],
            "batching": {"maxSize": 1},
        },
    }
    manifest = folder / "model.yaml"
    manifest.write_text(yaml.safe_dump(model))
    return manifest
