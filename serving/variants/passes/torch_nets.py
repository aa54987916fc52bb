"""ONNX to PyTorch and back, and training on a source's answers: what pruning and distilling share.

Runs in the toolchain ``torch``. Exported networks have their normalisation folded into the convolutions, and do not
train well without it; so ``normalised`` puts a batch normalisation behind each convolution that begins as the identity
(its scale and shift are the deviation and mean of what passes through), and ``folded`` takes it out again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx2torch
import torch
from onnx import version_converter
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import fusion

from serving.tensors import Array
from serving.variants.passes import base

OPSET = 17
"""The newest that onnx2torch reads."""
_SEED = 1
_BATCH = 32
_TEMPERATURE = 2.0
_ROUND_TO = 8
"""Channels are left in multiples of this: odd numbers are slower than more of them."""


def read(model: Path) -> fx.GraphModule:
    """The model as a PyTorch module with the same weights."""
    # Small networks gain nothing by threads, and lose much by their waiting for each other beside other work.
    torch.set_num_threads(1)
    proto = onnx.load(model)
    if proto.opset_import[0].version != OPSET:
        proto = version_converter.convert_version(proto, OPSET)
    torch.manual_seed(_SEED)
    net: fx.GraphModule = onnx2torch.convert(proto)
    return net.eval()


def write(net: nn.Module, like: Path, folder: Path) -> None:
    """The module as ONNX with inputs and outputs called as in ``like``, the first dimension free where it was."""
    graph = onnx.load(like, load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    (told,) = [one for one in graph.input if one.name not in weights]
    shape = [dimension.dim_value or 1 for dimension in told.type.tensor_type.shape.dim]
    free = told.type.tensor_type.shape.dim[0].dim_param
    names = [one.name for one in graph.output]
    torch.onnx.export(
        net.eval(),
        (torch.zeros(shape),),
        str(folder / base.FILE),
        input_names=[told.name],
        output_names=names,
        dynamic_axes={name: {0: free} for name in (told.name, *names)} if free else None,
        opset_version=OPSET,
        dynamo=False,
    )


def logits(net: fx.GraphModule) -> tuple[fx.GraphModule, Callable[[torch.Tensor], torch.Tensor] | None]:
    """The net without a softmax at its end, and that softmax, where it has one."""
    (output,) = [node for node in net.graph.nodes if node.op == "output"]
    last = output.args[0]
    last = last[0] if isinstance(last, (tuple, list)) else last
    if last.op == "call_module" and "softmax" in type(net.get_submodule(str(last.target))).__name__.lower():
        output.args = (last.args[0],)
        net.graph.eliminate_dead_code()
        net.recompile()
        return net, lambda scores: functional.softmax(scores, dim=-1)
    return net, None


class Answering(nn.Module):
    """A net with its softmax again."""

    def __init__(self, net: nn.Module, end: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        super().__init__()
        self.net = net
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x)
        return scores if self.end is None else self.end(scores)


def last_layers(net: fx.GraphModule) -> list[nn.Module]:
    """Convolutions and linear layers whose channels are the net's outputs."""
    found: list[nn.Module] = []
    (output,) = [node for node in net.graph.nodes if node.op == "output"]
    waiting, seen = list(output.all_input_nodes), set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        module = net.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            found.append(module)
        else:
            waiting.extend(node.all_input_nodes)
    return found


def narrowed(net: nn.Module, sample: torch.Tensor, ratio: float) -> nn.Module:
    """``net`` without a share ``ratio`` of its channels, those of least norm; PassRefused where none can go."""
    before = size(net)
    import torch_pruning  # what lowers to LiteRT reads networks without it

    pruner = torch_pruning.pruner.BasePruner(
        net,
        sample,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=last_layers(net),
        round_to=_ROUND_TO,
    )
    for weight in net.parameters():
        weight.requires_grad_(True)
    pruner.step()
    if size(net) == before:
        raise base.PassRefused(f"no channel can go at a ratio of {ratio:g}; take away more, or leave this pass out")
    return net


def renewed(net: nn.Module) -> nn.Module:
    """``net`` with fresh weights."""
    torch.manual_seed(_SEED)
    for module in net.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    return net


def size(net: nn.Module) -> int:
    """How many weights it has."""
    return sum(weight.numel() for weight in net.parameters())


def normalised(net: nn.Module, samples: torch.Tensor | None = None) -> nn.Module:
    """``net`` with a batch normalisation behind each convolution, giving what it gave on ``samples``.

    Without samples, for fresh weights, the outputs of each convolution are brought to mean 0 and deviation 1.
    """
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, nn.Sequential(module, _Measuring(module.out_channels)))
    if samples is not None:
        with torch.no_grad():
            net.eval()(samples)
    for module in net.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], _Measuring):
            module[1] = module[1].identity() if samples is not None else nn.BatchNorm2d(module[1].channels)
    return net


def folded(net: nn.Module) -> nn.Module:
    """``net`` without what ``normalised`` put in."""
    net.eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.BatchNorm2d):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, fusion.fuse_conv_bn_eval(module[0], module[1]))
    return net


class _Measuring(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self._mean = self._variance = torch.zeros(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._mean, self._variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        return x

    def identity(self) -> nn.BatchNorm2d:
        """A normalisation that changes nothing of what was measured."""
        made = nn.BatchNorm2d(self.channels)
        made.running_mean, made.running_var = self._mean.clone(), self._variance.clone()
        made.weight.data, made.bias.data = (self._variance + made.eps).sqrt(), self._mean.clone()
        return made


def trained(
    net: nn.Module,
    teacher: nn.Module | None,
    x: torch.Tensor,
    y: torch.Tensor | None,
    *,
    classes: bool,
    epochs: int,
    rate: float,
    told: Callable[[float], None],
) -> nn.Module:
    """``net`` trained on the teacher's answers to ``x`` and to mixtures of two of them, and on labels where given.

    ``classes``: outputs are scores of classes, otherwise numbers. Without a teacher it learns from labels alone.
    """
    torch.manual_seed(_SEED)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    steps = epochs * math.ceil(len(x) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    wide = 1.0
    if not classes and (source := teacher(x[:256]) if teacher is not None else y) is not None:
        wide = float(source.detach().std()) or 1.0
    net.train()
    for epoch in range(epochs):
        for chosen in _batches(len(x)):
            inputs, labels = x[chosen], None if y is None else y[chosen]
            loss = torch.zeros(())
            if teacher is not None:
                share = torch.rand(len(inputs), *[1] * (x.ndim - 1)) * 0.5
                mixed = torch.where(
                    torch.rand(len(inputs), *[1] * (x.ndim - 1)) < 0.5,
                    inputs,
                    share * inputs.flip(0) + (1 - share) * inputs,
                )
                with torch.no_grad():
                    wanted = teacher(mixed)
                loss = loss + _apart(net(mixed), wanted, classes, wide)
            if labels is not None:
                found = net(inputs)
                loss = loss + (
                    functional.cross_entropy(found, labels) if classes else _apart(found, labels, classes, wide)
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        told((epoch + 1) / epochs)
    return net.eval()


def _apart(found: torch.Tensor, wanted: torch.Tensor, classes: bool, wide: float) -> torch.Tensor:
    if not classes:
        return functional.smooth_l1_loss(found / wide, wanted / wide)
    hot = functional.log_softmax(found / _TEMPERATURE, dim=-1)
    return (
        functional.kl_div(hot, functional.softmax(wanted / _TEMPERATURE, dim=-1), reduction="batchmean")
        * _TEMPERATURE**2
    )


def _batches(samples: int) -> Iterator[torch.Tensor]:
    for chosen in torch.randperm(samples).split(_BATCH):
        if len(chosen) > 1:  # one sample has no deviation to normalise by
            yield chosen


def frozen(net: nn.Module) -> nn.Module:
    """A copy that does not train."""
    kept = copy.deepcopy(net).eval()
    for weight in kept.parameters():
        weight.requires_grad_(False)
    return kept


def are_classes(y: Array | None) -> bool:
    """Whether labels are one class for each sample."""
    return y is not None and y.ndim == 1 and y.dtype.kind in "iu"


def error(net: nn.Module, x: torch.Tensor, wanted: torch.Tensor, classes: bool) -> float:
    """The share of samples whose highest score is not what was wanted; of numbers, the root of the mean square.

    What is wanted of classes are labels [n], or scores [n, classes].
    """
    with torch.no_grad():
        found = torch.cat([net(part) for part in x.split(256)])
    if not classes:
        return float((found - wanted).square().mean().sqrt())
    labels = wanted if wanted.ndim == 1 else wanted.argmax(-1)
    return float((found.argmax(-1) != labels).float().mean())
