"""A small network of the shape of YOLOv8-pose, written from the published description of its parts.

Pictures [N, 3, S, S] become [N, 56, M]: for each of M places (cells of 8, 16 and 32 pixels) the middle x, y, width and
height of a box in pixels, how sure the network is that somebody is there, and 17 joints of x, y and visibility.

A backbone halves the picture five times; a pyramid goes up and down again, so that each of its three levels knows both
what is near and what is where; and every level has a head each for boxes, for certainty and for joints. A box's side is
the mean of a distribution over distances ("distribution focal loss", Li et al. 2020), in cells.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

STRIDES = (8, 16, 32)
JOINTS = 17


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the network is."""

    widths: tuple[int, int, int, int, int]
    """Channels of the five levels of the backbone."""
    middle_depth: int
    """Bottlenecks in the stages of its third and fourth level; the others have one."""
    bins: int
    """Distances that a box's side is told by."""
    box_width: int
    """Channels inside a head for boxes."""
    certainty_width: int
    """Channels inside a head for certainty."""


SMALL = Size((8, 16, 24, 32, 48), middle_depth=1, bins=8, box_width=32, certainty_width=24)
NANO = Size((16, 32, 64, 128, 256), middle_depth=2, bins=16, box_width=64, certainty_width=64)


def convolution(channels_in: int, channels_out: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.SiLU(),
    )


class Stage(nn.Module):
    """Half of the channels pass a chain of bottlenecks; what each of them gives is kept and mixed at the end."""

    def __init__(self, channels_in: int, channels_out: int, depth: int = 1, *, residual: bool = True) -> None:
        super().__init__()
        half = channels_out // 2
        self.residual = residual
        self.first = convolution(channels_in, channels_out)
        self.bottleneck = self._bottleneck(half)
        self.more = nn.ModuleList(self._bottleneck(half) for _ in range(depth - 1))
        self.last = convolution((2 + depth) * half, channels_out)

    @staticmethod
    def _bottleneck(channels: int) -> nn.Sequential:
        return nn.Sequential(convolution(channels, channels, 3), convolution(channels, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [*self.first(x).chunk(2, dim=1)]
        for bottleneck in (self.bottleneck, *self.more):
            deeper = bottleneck(parts[-1])
            parts.append(deeper + parts[-1] if self.residual else deeper)
        return self.last(torch.cat(parts, dim=1))


class Pooling(nn.Module):
    """What is around, at three distances: one 5x5 maximum applied again and again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.last = convolution(channels * 2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [self.first(x)]
        for _ in range(3):
            seen.append(self.pool(seen[-1]))
        return self.last(torch.cat(seen, dim=1))


class PoseNet(nn.Module):
    """For pictures of ``side`` pixels; ``SMALL`` is what the example trains, ``NANO`` the size of YOLOv8n-pose."""

    def __init__(self, side: int, size: Size = SMALL) -> None:
        super().__init__()
        widths, bins = size.widths, size.bins
        first, second, third, fourth, fifth = widths
        self.bins = bins
        deep = size.middle_depth
        self.down2 = nn.Sequential(convolution(3, first, 3, 2), convolution(first, second, 3, 2), Stage(second, second))
        self.down3 = nn.Sequential(convolution(second, third, 3, 2), Stage(third, third, deep))
        self.down4 = nn.Sequential(convolution(third, fourth, 3, 2), Stage(fourth, fourth, deep))
        self.down5 = nn.Sequential(convolution(fourth, fifth, 3, 2), Stage(fifth, fifth), Pooling(fifth))
        self.twice = nn.Upsample(scale_factor=2)
        self.up4 = Stage(fifth + fourth, fourth, residual=False)
        self.up3 = Stage(fourth + third, third, residual=False)
        self.halve3 = convolution(third, third, 3, 2)
        self.again4 = Stage(third + fourth, fourth, residual=False)
        self.halve4 = convolution(fourth, fourth, 3, 2)
        self.again5 = Stage(fourth + fifth, fifth, residual=False)
        self.boxes = self._heads(widths[2:], 4 * bins, size.box_width)
        self.certainty = self._heads(widths[2:], 1, size.certainty_width)
        self.joints = self._heads(widths[2:], 3 * JOINTS, 51)
        for head in self.certainty:
            nn.init.constant_(head[-1].bias, -4.0)  # most places have nobody
        cells = [torch.arange(side // stride) + 0.5 for stride in STRIDES]
        grids = [torch.stack(torch.meshgrid(one, one, indexing="xy")).flatten(1) for one in cells]
        strides = [torch.full((1, grid.shape[1]), float(one)) for one, grid in zip(STRIDES, grids, strict=True)]
        self.register_buffer("middles", torch.cat(grids, dim=1)[None])  # [1, 2, M], in cells
        self.register_buffer("strides", torch.cat(strides, dim=1)[None])  # [1, 1, M], pixels of a cell
        self.register_buffer("distances", torch.arange(bins).float().view(1, bins, 1, 1))

    @staticmethod
    def _heads(widths: tuple[int, ...], channels_out: int, hidden: int) -> nn.ModuleList:
        return nn.ModuleList(
            nn.Sequential(
                convolution(width, hidden, 3), convolution(hidden, hidden, 3), nn.Conv2d(hidden, channels_out, 1)
            )
            for width in widths
        )

    def raw(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the heads say: boxes [N, 4 * bins, M], certainty [N, 1, M] before the sigmoid, joints [N, 51, M]."""
        two = self.down2(x)
        three = self.down3(two)
        four = self.down4(three)
        five = self.down5(four)
        up4 = self.up4(torch.cat([self.twice(five), four], dim=1))
        up3 = self.up3(torch.cat([self.twice(up4), three], dim=1))
        again4 = self.again4(torch.cat([self.halve3(up3), up4], dim=1))
        again5 = self.again5(torch.cat([self.halve4(again4), five], dim=1))
        levels = (up3, again4, again5)

        def told(heads: nn.ModuleList) -> torch.Tensor:
            return torch.cat([head(level).flatten(2) for head, level in zip(heads, levels, strict=True)], dim=2)

        return told(self.boxes), told(self.certainty), told(self.joints)

    def corners(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Upper left and lower right corner [N, 2, M] in pixels."""
        shares = boxes.unflatten(1, (4, self.bins)).transpose(1, 2).softmax(1)
        sides = (shares * self.distances).sum(1)
        return (self.middles - sides[:, :2]) * self.strides, (self.middles + sides[:, 2:]) * self.strides

    def places(self, joints: torch.Tensor) -> torch.Tensor:
        """Joints [N, 17, 2, M] in pixels."""
        offsets = joints.unflatten(1, (JOINTS, 3))[:, :, :2]
        return (offsets * 2 + (self.middles - 0.5)[:, None]) * self.strides[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        boxes, certainty, joints = self.raw(x)
        low, high = self.corners(boxes)
        visible = joints.unflatten(1, (JOINTS, 3))[:, :, 2:].sigmoid()
        told = torch.cat([self.places(joints), visible], dim=2).flatten(1, 2)
        return torch.cat([(low + high) / 2, high - low, certainty.sigmoid(), told], dim=1)


def export(net: PoseNet, side: int, path: Path) -> None:
    """``images`` [N, 3, side, side] to ``output0`` [N, 56, M], as YOLOv8-pose calls them."""
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, side, side),),
        str(path),
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes={"images": {0: "N"}, "output0": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )
