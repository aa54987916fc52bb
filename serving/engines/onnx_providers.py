"""Which of ONNX Runtime's execution providers compute a model: asked for by name, and never replaced in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from serving.errors import ArtifactRefused
from serving.settings import Provider

CPU = "CPUExecutionProvider"
_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
    "QNNExecutionProvider": "onnxruntime-qnn",
}

Named = tuple[str, dict[str, str]]


def named(model: Path, asked: Sequence[Provider]) -> list[Named]:
    """Names and options of the providers, as ONNX Runtime takes them; ArtifactRefused when one is not in this build."""
    available = onnxruntime.get_available_providers()
    found: list[Named] = []
    for provider in asked:
        ((name, options),) = provider.items() if isinstance(provider, dict) else ((provider, {}),)
        if name not in available:
            package = _PACKAGES.get(name)
            advice = f"install {package} instead of onnxruntime" if package else "check its name"
            raise ArtifactRefused(
                f"{model} asks for {name}, which this build of ONNX Runtime does not have "
                f"(it has {', '.join(available)}); {advice}, or change onnxruntime.providers"
            )
        found.append((name, {key: _text(value) for key, value in options.items()}))
    return found


def check(model: Path, asked: Sequence[Named], session: onnxruntime.InferenceSession) -> None:
    """ArtifactRefused when ONNX Runtime did without a provider that was asked for."""
    lost = [name for name, _ in asked if name not in session.get_providers()]
    if lost:
        raise ArtifactRefused(
            f"{model} asks for {', '.join(lost)}, which could not be started on this machine; "
            "check its driver and libraries, or change onnxruntime.providers"
        )


def _text(value: str | int | float | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
