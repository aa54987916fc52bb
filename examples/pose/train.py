# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy==2.4.6",
#   "onnx==1.23.2",
#   "pillow==13.0.0",
#   "torch==2.15.0",
# ]
# ///
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call"
# (torch is no dependency of Penstock, so a checker without it sees Any here.)
"""Trains the network of the pose example on figures drawn by chance, and writes it with its samples beside it.

Every figure's middle has some places of the network near it, on the two coarser levels; those learn its box and its
joints, and their certainty learns how well they have the joints. All other places learn that nobody is there.

CPU only, one thread, about ten minutes; the same versions on the same kind of CPU give the same bytes.
"""

from __future__ import annotations

import argparse
import time
import zipfile
from pathlib import Path

import figures
import numpy as np
import numpy.typing as npt
import torch
from network import STRIDES, PoseNet, export
from PIL import Image
from torch import nn
from torch.nn import functional

SEED = 1
TRAINING_PICTURES = 8000
EVALUATION_PICTURES = 1000
CALIBRATION_PICTURES = 128
SHOWN, SHOWN_SCALE = 4, 4
"""Which picture of the evaluation is written as one, and how many times as large."""
STEPS = 5000
BATCH = 24
PEAK_RATE = 4e-3
NEAR_CELLS = 1.5
"""How far a place may be from a figure's middle to learn from it, in its own cells."""


class Targets:
    """What each place of the network must learn from a batch of pictures: the places that see a figure's middle."""

    def __init__(self, net: PoseNet, joints: torch.Tensor, boxes: torch.Tensor) -> None:
        strides, middles = net.strides[0, 0], net.middles[0].T * net.strides[0].T  # [M], [M, 2] in pixels
        there = boxes[..., 2] > boxes[..., 0]
        apart = (middles - (boxes[..., None, :2] + boxes[..., None, 2:]) / 2).abs().amax(-1)  # [N, people, M]
        apart = torch.where(there[..., None], apart / strides, torch.inf)
        nearest, person = apart.min(dim=1)
        learns = (nearest < NEAR_CELLS) & (strides > STRIDES[0])
        self.picture, self.place = learns.nonzero(as_tuple=True)
        chosen = person[self.picture, self.place]
        self.boxes, self.joints = boxes[self.picture, chosen], joints[self.picture, chosen]
        self.stride = strides[self.place, None]


def loss(net: PoseNet, x: torch.Tensor, joints: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Of boxes (intersection over union), joints (COCO's similarity), their visibility and the certainty."""
    told_boxes, told_certainty, told_joints = net.raw(x)
    target = Targets(net, joints, boxes)
    at = (target.picture, slice(None), target.place)
    low, high = (corner[at] for corner in net.corners(told_boxes))
    common = (torch.minimum(high, target.boxes[:, 2:]) - torch.maximum(low, target.boxes[:, :2])).clamp(min=0).prod(1)
    area = (target.boxes[:, 2:] - target.boxes[:, :2]).prod(1)
    overlap = common / ((high - low).prod(1) + area - common + 1e-6)
    edges = (torch.cat([low, high], dim=1) - target.boxes).abs() / target.stride
    of_boxes = (1 - overlap).mean() + 0.05 * edges.mean()

    seen = target.joints[:, :, 2]
    found = net.places(told_joints).permute(0, 3, 1, 2)[target.picture, target.place]
    apart = found - target.joints[:, :, :2]
    # COCO takes the area of the outline; a figure fills about half of its box.
    size = 2 * 0.53 * area[:, None] * (2 * torch.from_numpy(figures.SIGMAS)) ** 2
    similar = torch.exp(-apart.square().sum(2) / size)
    of_joints = 4 * ((1 - similar) * seen).mean() + 0.1 * (apart.abs().sum(2) / target.stride * seen).mean()
    visible = told_joints.unflatten(1, (figures.JOINTS, 3))[:, :, 2].permute(0, 2, 1)[target.picture, target.place]
    of_visibility = functional.binary_cross_entropy_with_logits(visible, seen)

    certain = torch.zeros_like(told_certainty[:, 0])
    certain[target.picture, target.place] = similar.mean(1).detach().clamp(min=0.1)
    of_certainty = functional.binary_cross_entropy_with_logits(told_certainty[:, 0], certain, reduction="sum")
    return 2 * of_boxes + 3 * of_joints + 0.5 * of_visibility + 2 * of_certainty / max(1, len(seen))


def trained(data: figures.Pictures, steps: int) -> PoseNet:
    """A network ready for inference."""
    torch.manual_seed(SEED)
    net = PoseNet(figures.SIDE)
    print(f"{sum(weight.numel() for weight in net.parameters())} weights", flush=True)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    net.train()
    began = time.process_time()
    for step in range(steps):
        chosen = torch.randint(0, len(data.pixels), (BATCH,)).numpy()
        x = torch.from_numpy(figures.tensor(data.pixels[chosen]))
        found = loss(net, x, torch.from_numpy(data.joints[chosen]), torch.from_numpy(data.boxes[chosen]))
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if not (step + 1) % 50:
            took_s = time.process_time() - began
            print(f"step {step + 1} of {steps}, {took_s:.0f} s of CPU: loss {found.item():.3f}", flush=True)
    return net.eval()


def write_samples(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """An .npz packed by bzip2: flat areas of few colours take little room."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_BZIP2
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    said = parser.parse_args()
    torch.set_num_threads(1)
    seen = figures.draw(TRAINING_PICTURES, SEED)
    unseen = figures.draw(EVALUATION_PICTURES, SEED + 1)
    calibration = figures.draw(CALIBRATION_PICTURES, SEED + 2)
    write_samples(
        said.folder / "eval.npz", x=figures.tensor(unseen.pixels), keypoints=unseen.joints, boxes=unseen.boxes
    )
    write_samples(said.folder / "calibration.npz", x=figures.tensor(calibration.pixels))
    picture = Image.fromarray(unseen.pixels[SHOWN].transpose(1, 2, 0))
    larger = (SHOWN_SCALE * figures.SIDE,) * 2
    picture.resize(larger, Image.Resampling.NEAREST).save(said.folder / "two.png", optimize=True)
    export(trained(seen, said.steps), figures.SIDE, said.folder / "model.onnx")


if __name__ == "__main__":
    main()
