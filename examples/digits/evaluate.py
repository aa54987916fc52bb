"""Measures the three shipped networks on the held-out digits, and prints the table of README.md.

Needs numpy and onnxruntime only; it reads what is served, not what was trained.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

HERE = Path(__file__).parent
MODELS = ("model.onnx", "next/model.onnx", "next/broken/model.onnx")
LEAST_PROBABILITY = 1e-7
"""Keeps the loss of a probability that was rounded to zero finite."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """``loss``: mean cross-entropy in nats. ``worst``: the digit read worst, with the share read right."""

    correct: int
    samples: int
    loss: float
    worst: tuple[int, float]


def scores(model: Path, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The model's probabilities [n, 10] for x [n, 1, 32, 32], on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["scores"], {"image": x})
    return np.asarray(answer, dtype=np.float32)


def measure(answer: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> Measured:
    """How well the probabilities [n, 10] agree with the digits y [n]."""
    right = answer.argmax(axis=1) == y
    probability = np.maximum(answer[np.arange(len(y)), y], LEAST_PROBABILITY)
    shares = [float(right[y == digit].mean()) for digit in range(10)]
    worst = int(np.argmin(shares))
    return Measured(int(right.sum()), len(y), float(-np.log(probability).mean()), (worst, shares[worst]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the digits models on the held-out samples.")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the models and eval.npz are")
    folder = parser.parse_args().folder
    with np.load(folder / "eval.npz", allow_pickle=False) as held_out:
        x, y = held_out["x"], held_out["y"]
    print("| model | read right | accuracy | loss | worst digit |\n|---|---|---|---|---|")
    for name in MODELS:
        found = measure(scores(folder / name, x), y)
        digit, share = found.worst
        print(
            f"| `{name}` | {found.correct} of {found.samples} | {found.correct / found.samples:.2%} "
            f"| {found.loss:.3f} | {digit}: {share:.1%} |"
        )


if __name__ == "__main__":
    main()
