"""TensorRT, for ONNX files called ``….tensorrt.onnx``: ONNX Runtime's provider of that name, on an NVIDIA GPU.

The plan is made when the file is loaded, on the GPU that it is for, since a plan fits no other. What it computes in
stands in the file's metadata, as for OpenVINO. Operators that TensorRT lacks run on CUDA, none on the CPU.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnxruntime

from serving.engines import onnx_screen
from serving.engines.onnxruntime import OnnxRuntimeEngine
from serving.errors import ArtifactRefused
from serving.settings import DEFAULT, OnnxRuntime, Provider, Settings

PROVIDER = "TensorrtExecutionProvider"


class TensorRtEngine(OnnxRuntimeEngine):
    """One model in one session on a GPU."""

    platform = "tensorrt_plan"


def load(path: Path, said: Settings = DEFAULT, shared: Path | None = None) -> TensorRtEngine:
    """The engine with this ONNX file loaded, after it was screened; ArtifactRefused without a GPU."""
    findings = onnx_screen.screen(path)
    check(path)
    half = findings.metadata.get(onnx_screen.PRECISION) == "fp16"
    providers: tuple[Provider, ...] = ({PROVIDER: {"trt_fp16_enable": half}}, "CUDAExecutionProvider")
    return TensorRtEngine(path, msgspec.structs.replace(said, onnxruntime=OnnxRuntime(providers=providers)), findings)


def check(path: Path) -> None:
    """ArtifactRefused where nothing here computes it."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise ArtifactRefused(
            f"{path} is for TensorRT, and this ONNX Runtime has no {PROVIDER}; install onnxruntime-gpu instead of "
            "onnxruntime on a machine with an NVIDIA GPU, or leave it to another engine"
        )
