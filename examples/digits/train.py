# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy==2.4.6",
#   "onnx==1.23.2",
#   "onnxruntime==1.32.0",
#   "pillow==13.0.0",
#   "scikit-learn==1.9.1",
#   "torch==2.15.0",
# ]
# ///
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call"
# (torch and scikit-learn are no dependency of Penstock, so a checker without them sees Any here.)
"""Trains the networks of the digits example, and writes them with the samples and pictures beside them.

The data are scikit-learn's digits: 1,797 scans of hand-written digits, reduced to 8x8 points of 17 grey levels.
Each becomes 32x32 points of 256 levels by Pillow's bicubic filter, and a tensor by ``SCALE``, which is what the
``contract`` in model.yaml says: a PNG written here and a row of eval.npz are the same numbers.

More than half, stratified, is held out: it is eval.npz, and the PNGs come from it; the rest is train.npz, for variants
that learn again. Three networks are written: ``model.onnx``, wide and trained briefly; ``next/model.onnx``, a third of
its size and trained longer on distorted copies, a second revision worth rolling out; and ``next/broken/model.onnx``,
the second one with its classes mixed up, a third revision that must be rolled back.
CPU only, one thread, a minute or two; the same versions on the same kind
of CPU give the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import zipfile
from pathlib import Path

import evaluate
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

SEED = 3
SIDE = 32
SCALE = np.float32(0.00392156863)
HELD_OUT = 0.55
"""So that each digit has 95 samples or more: one lost among them is less than 5 points at 95 % confidence."""
CALIBRATION_SAMPLES = 200
BATCH = 32
PEAK_RATE = 1e-2
REQUIRED_ACCURACY = 0.985
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What makes one revision differ from another. ``width``: channels of the first of three stages."""

    width: int
    epochs: int
    distort: bool


FIRST = Recipe(width=36, epochs=8, distort=False)
NEXT = Recipe(width=20, epochs=40, distort=True)


def scans() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All digits as grey pictures [n, 32, 32] and the digit each one shows [n]."""
    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(scan).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for scan in small]
    return np.stack([np.asarray(picture) for picture in large]), digits.target.astype(np.int64)


def tensor(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pictures [n, 32, 32] as the network's input [n, 1, 32, 32], values 0..1."""
    return pictures[:, np.newaxis].astype(np.float32) * SCALE


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; ``stride`` 2 halves the picture."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.convolutions(x) + self.shortcut(x))


def network(width: int) -> nn.Sequential:
    """[N, 1, 32, 32] to logits [N, 10]; the picture shrinks to 16, 8 and 4 points a side."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width, width, 1),
        Residual(width, 2 * width, 2),
        Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, len(NAMES)),
    )


def distorted(x: torch.Tensor) -> torch.Tensor:
    """Each picture turned by up to 7 degrees, scaled by up to 6 % and shifted by up to 1.4 points."""

    def uniform(bound: float) -> torch.Tensor:
        return (torch.rand(len(x)) * 2 - 1) * bound

    angle, size = uniform(0.12), 1 + uniform(0.06)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    rows = torch.stack([cos, -sin, uniform(0.09), sin, cos, uniform(0.09)], dim=1)
    grid = functional.affine_grid(rows.reshape(-1, 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def fit(recipe: Recipe, x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    """A network trained on x [n, 1, 32, 32] and y [n], ready for inference."""
    torch.manual_seed(SEED)
    net = network(recipe.width)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    steps = recipe.epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in range(recipe.epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            pictures = distorted(x[batch]) if recipe.distort else x[batch]
            loss = functional.cross_entropy(net(pictures), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"width {recipe.width}, epoch {epoch + 1} of {recipe.epochs}: loss {loss.item():.3f}", flush=True)
    return net.eval()


def export(net: nn.Sequential, path: Path) -> None:
    """Writes the network with a softmax behind it: ``image`` [N, 1, 32, 32] to ``scores`` [N, 10]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # TorchScript's exporter writes GlobalAveragePool and opset 17; the newer one needs 18.
    torch.onnx.export(
        nn.Sequential(net, nn.Softmax(dim=1)).eval(),
        (torch.zeros(1, 1, SIDE, SIDE),),
        str(path),
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )


def with_mixed_classes(net: nn.Sequential) -> nn.Sequential:
    """The network with every class but zero answered as another, so that a try with one zero looks right."""
    broken = copy.deepcopy(net)
    last = broken[-1]
    assert isinstance(last, nn.Linear)
    order = [0, *range(2, len(NAMES)), 1]
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    return broken


def write_samples(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """An .npz packed by bzip2, which takes half the room of ``numpy.savez_compressed`` and is read just as well."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_BZIP2
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def write_pictures(
    folder: Path,
    pictures: npt.NDArray[np.uint8],
    y: npt.NDArray[np.int64],
    certainty: npt.NDArray[np.float32],
) -> None:
    """One PNG a digit, named by its word: the held-out scan with the highest ``certainty`` [n]."""
    for digit, name in enumerate(NAMES):
        clearest = np.argmax(np.where(y == digit, certainty, -1))
        Image.fromarray(pictures[clearest]).save(folder / f"{name}.png", optimize=True)


def write_request(folder: Path, name: str) -> None:
    """``NAME.json``: the picture ``NAME.png`` as an inference request of the Open Inference Protocol, for curl."""
    with Image.open(folder / f"{name}.png") as image:
        x = tensor(np.asarray(image)[np.newaxis])
    data = [round(float(value), 6) for value in x.ravel()]
    request = {"inputs": [{"name": "image", "shape": list(x.shape), "datatype": "FP32", "data": data}]}
    (folder / f"{name}.json").write_text(json.dumps(request) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)

    pictures, y = scans()
    x = tensor(pictures)
    everything = np.arange(len(y))
    seen, unseen = train_test_split(everything, test_size=HELD_OUT, stratify=y, random_state=SEED)
    calibration, _ = train_test_split(seen, train_size=CALIBRATION_SAMPLES, stratify=y[seen], random_state=SEED)

    first, second = (fit(recipe, torch.from_numpy(x[seen]), torch.from_numpy(y[seen])) for recipe in (FIRST, NEXT))
    paths = [folder / name for name in evaluate.MODELS]
    for net, path in zip((first, second, with_mixed_classes(second)), paths, strict=True):
        export(net, path)
    write_samples(folder / "eval.npz", x=x[unseen], y=y[unseen])
    write_samples(folder / "train.npz", x=x[seen], y=y[seen])
    write_samples(folder / "calibration.npz", x=x[calibration])

    answers = [evaluate.scores(path, x[unseen]) for path in paths]
    # A reader's first try: a scan that both good revisions read right, and are most certain about.
    certainty = np.minimum(answers[0], answers[1])[np.arange(len(unseen)), y[unseen]]
    write_pictures(folder, pictures[unseen], y[unseen], certainty)
    write_request(folder, "seven")

    for name, answer in zip(evaluate.MODELS, answers, strict=True):
        found = evaluate.measure(answer, y[unseen])
        print(f"{name}: {found.correct} of {found.samples} read right, loss {found.loss:.3f}")
    accuracy = evaluate.measure(answers[0], y[unseen]).correct / len(unseen)
    if accuracy < REQUIRED_ACCURACY:
        raise SystemExit(f"model.onnx reads {accuracy:.2%} right, below {REQUIRED_ACCURACY:.2%}: do not ship it")


if __name__ == "__main__":
    main()
