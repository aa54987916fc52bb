"""``prune`` with ``structure: channels``: whole channels go, with all that hangs on them; the rest learns again.

The dependency graph is torch-pruning's; the channels of least norm go. Without learning again hardly anything is left
of the answers (measured: 9.7 % of digits right after half of the channels went, 99.5 % after training), so training
data is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from serving.variants.passes import base, torch_nets
from serving.variants.recipe import Prune


def make(model: Path, folder: Path, asked: Prune, samples: base.Samples | None, told: base.Told) -> dict[str, Any]:
    """Refused where nothing can be removed, or without samples to learn from."""
    if samples is None or asked.training is None:
        raise base.PassRefused("prune: channels cannot go without training; name samples in prune.training.data.uri")
    x, y = base.joined(samples)
    inputs = torch.from_numpy(x)
    labels = None if y is None else torch.from_numpy(y).long()
    net, end = torch_nets.logits(torch_nets.read(model))
    teacher = torch_nets.frozen(net)
    narrow = torch_nets.narrowed(net, inputs[:1], asked.ratio)
    classes = end is not None or torch_nets.are_classes(y)
    learned = torch_nets.trained(
        torch_nets.normalised(narrow, inputs[:256]),
        teacher,
        inputs,
        labels if classes else None,
        classes=classes,
        epochs=asked.training.epochs,
        rate=asked.training.rate,
        told=told,
    )
    torch_nets.write(torch_nets.Answering(torch_nets.folded(learned), end), model, folder)
    return {"weights": [torch_nets.size(teacher), torch_nets.size(learned)]}
