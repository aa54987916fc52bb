# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy==2.4.6",
#   "onnx==1.23.2",
#   "torch==2.15.0",
# ]
# ///
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call"
# (torch is no dependency of Penstock, so a checker without it sees Any here.)
"""Makes the graphs of the graph example, trains a small graph network to tell their kinds apart, and writes both.

A graph has 8 to 24 nodes of one of four kinds: a ring, a tree, a grid or two groups, with some edges added and taken
away at random, and noise at the nodes, so that some look like another kind. The network sees an adjacency matrix
[24, 24] filled up with zeros, and for each node 8 numbers: whether it is there, and 7 of noise.

Written are ``model.onnx``, ``eval.npz`` and ``calibration.npz``. CPU only, one thread, some minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

SEED = 1
NODES, FEATURES, WIDTH, KINDS = 24, 8, 128, 4
TRAINING_SAMPLES, HELD_OUT, CALIBRATION_SAMPLES = 8000, 1200, 200
CHANGED_EDGES = 0.06
EPOCHS = 12
BATCH = 64
PEAK_RATE = 2e-3
REQUIRED_ACCURACY = 0.9

Floats = npt.NDArray[np.float32]


def edges(kind: int, count: int, random: np.random.Generator) -> list[tuple[int, int]]:
    """Of a graph of ``count`` nodes: a ring, a tree, a grid or two groups."""
    if kind == 0:
        return [(node, (node + 1) % count) for node in range(count)]
    if kind == 1:
        return [(node, int(random.integers(0, node))) for node in range(1, count)]
    if kind == 2:
        side = int(np.ceil(count**0.5))
        across = [(node, node + 1) for node in range(count - 1) if (node + 1) % side]
        return across + [(node, node + side) for node in range(count - side)]
    group = random.integers(0, 2, count)
    return [
        (one, other)
        for one in range(count)
        for other in range(one)
        if group[one] == group[other] and random.random() < 5 / count
    ]


def made(samples: int, random: np.random.Generator) -> tuple[dict[str, Floats], npt.NDArray[np.int64]]:
    """Inputs of graphs by name, and their kinds."""
    adjacency = np.zeros((samples, NODES, NODES), np.float32)
    features = np.zeros((samples, NODES, FEATURES), np.float32)
    kinds = random.integers(0, KINDS, samples)
    for matrix, nodes, kind in zip(adjacency, features, kinds, strict=True):
        count = int(random.integers(8, NODES + 1))
        names = random.permutation(count)
        for one, other in edges(kind, count, random):
            if random.random() > CHANGED_EDGES:
                matrix[names[one], names[other]] = matrix[names[other], names[one]] = 1
        for _ in range(random.poisson(CHANGED_EDGES * count)):
            one, other = random.choice(count, 2, replace=False)
            matrix[one, other] = matrix[other, one] = 1
        nodes[:count, 0] = 1
        nodes[:count, 1:] = np.round(random.normal(0, 0.3, (count, FEATURES - 1)), 2)
    return {"adjacency": adjacency, "features": features}, kinds


class Layer(nn.Module):
    """Each node looks at itself and at the sum and the mean of its neighbours."""

    def __init__(self, wide_in: int) -> None:
        super().__init__()
        self.own, self.summed, self.mean = (nn.Linear(wide_in, WIDTH) for _ in range(3))

    def forward(self, adjacency: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        summed = adjacency @ x
        degree = adjacency.sum(-1, keepdim=True).clamp(min=1)
        return functional.relu(self.own(x) + self.summed(summed * 0.3) + self.mean(summed / degree))


class Network(nn.Module):
    """``adjacency`` [N, 24, 24] and ``features`` [N, 24, 8] to scores of kinds [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(FEATURES), Layer(WIDTH), Layer(WIDTH)])
        self.kinds = nn.Linear(2 * WIDTH, KINDS)

    def forward(self, adjacency: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        there, x = features[:, :, :1], features
        for layer in self.layers:
            x = layer(adjacency, x) * there
        mean = x.sum(1) / there.sum(1).clamp(min=1)
        return self.kinds(torch.cat([mean, x.amax(1)], -1)).softmax(-1)


def fit(inputs: dict[str, torch.Tensor], y: torch.Tensor) -> nn.Module:
    """Trained on graphs and their kinds."""
    torch.manual_seed(SEED)
    net = Network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    steps = EPOCHS * len(y.split(BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(y)).split(BATCH):
            scores = net(*(one[batch] for one in inputs.values()))
            loss = functional.nll_loss(scores.clamp(min=1e-7).log(), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)

    random = np.random.default_rng(SEED)
    (seen, seen_y), (held, held_y) = made(TRAINING_SAMPLES, random), made(HELD_OUT, random)
    net = fit({name: torch.from_numpy(one) for name, one in seen.items()}, torch.from_numpy(seen_y))
    given = tuple(torch.from_numpy(one) for one in held.values())
    with torch.no_grad():
        accuracy = float((net(*given).argmax(-1).numpy() == held_y).mean())
    print(f"{accuracy:.2%} of {HELD_OUT} right, {sum(one.numel() for one in net.parameters())} weights")
    torch.onnx.export(
        net,
        tuple(one[:2] for one in given),
        str(folder / "model.onnx"),
        input_names=list(held),
        output_names=["scores"],
        dynamic_axes={name: {0: "N"} for name in (*held, "scores")},
        opset_version=17,
        dynamo=False,
    )
    np.savez_compressed(folder / "eval.npz", **held, y=held_y)
    np.savez_compressed(folder / "calibration.npz", **{name: one[:CALIBRATION_SAMPLES] for name, one in seen.items()})
    if accuracy < REQUIRED_ACCURACY:
        raise SystemExit(f"model.onnx tells {accuracy:.2%} right, below {REQUIRED_ACCURACY:.2%}: do not ship it")


if __name__ == "__main__":
    main()
