"""``distill``: a smaller network learns the source's answers.

The student is given as ONNX and begins from its own weights, or it has the structure that pruning the source's channels
leaves and begins from fresh ones. Learning from answers did not always beat learning from labels (measured: 98.5 and
98.8 % of digits right, and 85.9 and 90.5 % for a smaller student), so where the samples have labels another student
learns from these alone, from the same weights in the same number of steps. Both are tried on a tenth of the samples
that neither has seen, and the better one is written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from serving.tensors import Array
from serving.variants.passes import base, torch_nets
from serving.variants.recipe import Distill

_HELD_OUT = 10
"""Of so many samples one is held out."""


def make(
    model: Path,
    folder: Path,
    asked: Distill,
    samples: base.Samples | None,
    told: base.Told,
    student: Path | None = None,
) -> dict[str, Any]:
    """Refused where the student's answers have another shape, or no channel of the source can go."""
    assert samples is not None
    x, y = base.joined(samples)
    inputs = torch.from_numpy(x)
    original, end = torch_nets.logits(torch_nets.read(model))
    teacher = torch_nets.frozen(original)
    if len(inputs) < 2 * _HELD_OUT:
        raise base.PassRefused(f"distill: {len(inputs)} samples are too few to learn from; give at least 20")
    with torch.no_grad():
        answers = torch.cat([teacher(part) for part in inputs.split(256)])
    if student is None:
        assert asked.width is not None
        ready = torch_nets.normalised(torch_nets.renewed(torch_nets.narrowed(original, inputs[:1], 1 - asked.width)))
    else:
        given = torch_nets.logits(torch_nets.read(student))[0]
        _check_answers(given, inputs[:1], answers[:1])
        ready = torch_nets.normalised(given, inputs[:256])
    classes = end is not None or torch_nets.are_classes(y)
    labels = _labels(y, answers, classes)
    seen = torch.arange(len(inputs)) % _HELD_OUT != 0

    def learned(net: nn.Module, source: nn.Module | None, heard: Callable[[float], None]) -> nn.Module:
        """A trained copy."""
        return torch_nets.folded(
            torch_nets.trained(
                copy.deepcopy(net),
                source,
                inputs[seen],
                None if labels is None else labels[seen],
                classes=classes,
                epochs=asked.training.epochs,
                rate=asked.training.rate,
                told=heard,
            )
        )

    def error(net: nn.Module) -> float:
        """On what was held out, the lower the better."""
        wanted = answers if labels is None else labels
        return torch_nets.error(net, inputs[~seen], wanted[~seen], classes)

    halves = 1 if labels is None else 2
    found = {"answers": learned(ready, teacher, lambda share: told(share / halves))}
    if labels is not None:
        found["labels"] = learned(ready, None, lambda share: told((1 + share) / 2))
    errors = {name: error(net) for name, net in found.items()}
    best = min(errors, key=lambda name: errors[name])
    torch_nets.write(torch_nets.Answering(found[best], end), model, folder)
    return {
        "weights": [torch_nets.size(teacher), torch_nets.size(found[best])],
        "learned from": best,
        "share wrong" if classes else "deviation": {name: round(value, 6) for name, value in errors.items()},
        "held out": int((~seen).sum()),
    }


def _check_answers(student: nn.Module, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
    """That the student takes what the source takes and gives what it gives."""
    try:
        with torch.no_grad():
            shape = list(student(inputs).shape)
    except RuntimeError as error:
        raise base.PassRefused(f"distill: the student does not take the source's inputs: {error}") from error
    if shape != list(wanted.shape):
        raise base.PassRefused(
            f"distill: the student answers {shape} to one sample and the source {list(wanted.shape)}; "
            "give the student the source's outputs"
        )


def _labels(y: Array | None, answers: torch.Tensor, classes: bool) -> torch.Tensor | None:
    """Labels that a network can learn from: classes, or numbers as many as the source answers."""
    if y is None:
        return None
    if classes:
        return torch.from_numpy(y).long() if torch_nets.are_classes(y) else None
    return torch.from_numpy(y).float().reshape(answers.shape) if y.size == answers.numel() else None
