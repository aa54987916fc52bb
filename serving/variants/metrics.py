"""What answers are worth: each metric says what it keeps of a sample, and what a set of kept samples is worth.

Values are better the higher they are; a loss counts with a minus inside and is shown without. ``outcomes`` looks at one
batch at a time, so that no more is kept of a dataset than a row of numbers for each sample.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serving.errors import ArtifactRefused, InvalidInput
from serving.tensors import Array
from serving.translation.scores import probabilities
from serving.variants.datasets import LABELS
from serving.variants.detection import AveragePrecision
from serving.variants.segmentation import MeanIou

Rows = npt.NDArray[np.float64]

ENTRY_POINTS = "penstock.metrics"
"""Group of entry points under which a distribution offers metrics of its own: name = module:Metric()."""


class Metric(Protocol):
    """How good answers are."""

    @property
    def is_share(self) -> bool:
        """Whether each sample is right (1) or wrong (0), in one column, and the value their mean."""

    @property
    def has_points(self) -> bool:
        """Whether it goes from 0 to 1, so that drops are told in points."""

    @property
    def is_loss(self) -> bool:
        """Whether what people read is lower the better: minus the value."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Arrays of the dataset that say what is right, in the order in which ``outcomes`` takes them."""

    @property
    def outcomes(self) -> Callable[..., Rows]:
        """What is kept of each sample of a batch, [n, columns], given the output and then the labels.

        InvalidInput where they do not fit each other.
        """

    def value(self, rows: Rows) -> float:
        """What the samples are worth together, the higher the better."""


@dataclasses.dataclass(frozen=True)
class TopK:
    """The share of samples whose label is among the ``k`` highest scores; with one column, that is the label itself."""

    k: int
    is_share = True
    has_points = True
    is_loss = False
    labels = (LABELS,)

    def outcomes(self, output: Array, labels: Array) -> Rows:
        if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1 and output.dtype.kind not in "f"):
            return _rows(output.reshape(-1) == labels)
        scores = _scores(output, labels)
        own = scores[np.arange(len(labels)), labels][:, None]
        better = (scores > own).sum(axis=1)
        # Of equal scores the first wins, as argmax has it.
        ties = (np.arange(scores.shape[1])[None, :] < labels[:, None]) & (scores == own)
        return _rows((better + ties.sum(axis=1) < self.k) & np.isfinite(own[:, 0]))

    def value(self, rows: Rows) -> float:
        return float(rows[:, 0].mean())


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    """The share of samples whose whole output equals the label."""

    is_share = True
    has_points = True
    is_loss = False
    labels = (LABELS,)

    def outcomes(self, output: Array, labels: Array) -> Rows:
        if output.shape != labels.shape:
            raise InvalidInput(
                f"the output has shape {_shape(output)} and the labels {_shape(labels)}; give y the shape of the output"
            )
        return _rows((output == labels).reshape(len(labels), -1).all(axis=1))

    def value(self, rows: Rows) -> float:
        return float(rows[:, 0].mean())


@dataclasses.dataclass(frozen=True)
class LogLoss:
    """Mean of -ln of the probability given to the label; scores that are no distribution are taken for logits."""

    is_share = False
    has_points = False
    is_loss = True
    labels = (LABELS,)

    def outcomes(self, output: Array, labels: Array) -> Rows:
        chosen = probabilities(_scores(output, labels))[np.arange(len(labels)), labels]
        return _rows(-np.log(np.maximum(chosen, 1e-7)))

    def value(self, rows: Rows) -> float:
        return -float(rows[:, 0].mean())


@dataclasses.dataclass(frozen=True)
class Deviation:
    """RMSE (``power`` 2) or MAE (1) of numbers."""

    power: int
    is_share = False
    has_points = False
    is_loss = True
    labels = (LABELS,)

    def outcomes(self, output: Array, labels: Array) -> Rows:
        if output.size != labels.size:
            raise InvalidInput(
                f"the output has shape {_shape(output)} and the labels {_shape(labels)}; give y the shape of the "
                "output, or name a metric of classes"
            )
        apart = output.reshape(len(labels), -1).astype(np.float64) - labels.reshape(len(labels), -1)
        return _rows((np.abs(apart) ** self.power).mean(axis=1))

    def value(self, rows: Rows) -> float:
        return -float(rows[:, 0].mean() ** (1 / self.power))


@dataclasses.dataclass(frozen=True)
class F1:
    """F1 of the classes, each counted alike (macro)."""

    is_share = False
    has_points = True
    is_loss = False
    labels = (LABELS,)

    def outcomes(self, output: Array, labels: Array) -> Rows:
        chosen = output.reshape(-1) if output.ndim == 1 else _scores(output, labels).argmax(axis=1)
        return np.stack([labels, chosen], axis=1).astype(np.float64)

    def value(self, rows: Rows) -> float:
        found = []
        for label in np.unique(rows[:, 0]):
            right = float(((rows[:, 0] == label) & (rows[:, 1] == label)).sum())
            found.append(2 * right / float((rows[:, 0] == label).sum() + (rows[:, 1] == label).sum()))
        return float(np.mean(found))


@dataclasses.dataclass(frozen=True)
class Auroc:
    """The chance that a sample of class 1 scores higher than one of class 0 (ties count half)."""

    is_share = False
    has_points = True
    is_loss = False
    labels = (LABELS,)

    def outcomes(self, output: Array, labels: Array) -> Rows:
        scores = output.reshape(len(labels), -1)[:, -1]
        if ((labels != 0) & (labels != 1)).any():
            raise InvalidInput("auroc needs labels 0 and 1")
        return np.stack([labels, scores], axis=1).astype(np.float64)

    def value(self, rows: Rows) -> float:
        from scipy import stats

        positive = rows[:, 0] == 1
        many, few = int(positive.sum()), int((~positive).sum())
        if not many or not few:
            return float("nan")
        ranks = stats.rankdata(rows[:, 1])
        return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * few))


_KNOWN: dict[str, Metric] = {
    "accuracy": TopK(1),
    "exact-match": ExactMatch(),
    "f1": F1(),
    "auroc": Auroc(),
    "log-loss": LogLoss(),
    "rmse": Deviation(2),
    "mae": Deviation(1),
    "ap-oks": AveragePrecision("oks", most=20),
    "ap-iou": AveragePrecision("iou", most=100),
    "mean-iou": MeanIou(),
}


def named(name: str, contract: Mapping[str, Any] | None = None) -> Metric:
    """The metric of this name: a built-in one, ``top-K``, or one that a distribution offers; else InvalidInput.

    ``contract`` is the Model's, by which answers are read that need it.
    """
    if found := re.fullmatch(r"top-([1-9][0-9]*)", name):
        return TopK(int(found[1]))
    if name in _KNOWN:
        known = _KNOWN[name]
        return known.by(contract) if isinstance(known, AveragePrecision) and contract else known
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        metric: Metric = entry.load()
        return metric
    raise InvalidInput(
        f"evaluation.metric {name!r} is not known; one of {', '.join(_KNOWN)}, top-K, or the name of an entry point of "
        f"the group {ENTRY_POINTS}"
    )


def _scores(output: Array, labels: Array) -> Array:
    """Scores as [n, classes]; ArtifactRefused where the labels are no positions in them."""
    if output.ndim != 2 or labels.ndim != 1 or labels.dtype.kind not in "iu":
        instead = ""
        if labels.dtype.kind in "US":
            instead = ": write for each name its position among the classes"
        elif labels.ndim == 2 and labels.shape == output.shape:
            instead = ": write y.argmax(axis=1)"
        raise ArtifactRefused(
            f"the labels are {labels.dtype} {_shape(labels)} and the output {_shape(output)}; a metric of classes "
            f"needs whole numbers [n] as y, and scores [n, classes]{instead}"
        )
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= output.shape[1]):
        raise ArtifactRefused(
            f"the labels go from {labels.min()} to {labels.max()}, and the output has {output.shape[1]} classes, from "
            "0 on"
        )
    return output


def _shape(array: Array) -> str:
    """As people write it, of however many samples."""
    return f"[{', '.join(('n', *map(str, array.shape[1:])))}]"


def _rows(values: Array) -> Rows:
    """One column of numbers."""
    rows: Rows = values.astype(np.float64)[:, None]
    return rows
