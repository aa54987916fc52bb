"""What a model answers on a dataset, sample by sample, and what a variant is worth beside its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.engines.base import Engine
from serving.errors import ArtifactRefused, InvalidInput
from serving.tensors import Array
from serving.variants import intervals
from serving.variants.datasets import LABELS, Dataset
from serving.variants.gate import Quality, Rule, Slice
from serving.variants.metrics import Metric, Rows

BATCH = 32
_MOST_CLASSES = 50


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is kept of a model's answers to n samples."""

    rows: Rows
    """What the metric keeps: [n, columns]."""
    answers: npt.NDArray[np.float64]
    """The class, or the mean of the output, of each sample [n]; to tell where two models disagree."""
    finite: npt.NDArray[np.bool_]
    low: npt.NDArray[np.float64]
    """Least and greatest finite value of each sample's output [n]."""
    high: npt.NDArray[np.float64]
    slices: npt.NDArray[np.str_]
    """Which slice of the data each sample is in [n]; empty texts where nothing is sliced."""
    classes: npt.NDArray[np.int64]
    """Which class each sample is of [n]; -1 where answers are no classes."""

    def confusion(self) -> npt.NDArray[np.int64] | None:
        """How many samples of each class (rows) it takes for which (columns); None where there are none, or too many
        to read.
        """
        if not len(self.classes) or self.classes.min() < 0:
            return None
        size = int(max(self.classes.max(), self.answers.max())) + 1
        if not 2 <= size <= _MOST_CLASSES:
            return None
        found = np.zeros((size, size), np.int64)
        np.add.at(found, (self.classes, self.answers.astype(np.int64)), 1)
        return found

    def save(self, path: Path) -> None:
        """As an .npz."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """What ``save`` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            return cls(**{field.name: saved[field.name] for field in dataclasses.fields(cls)})


def outcome(engine: Engine, dataset: Dataset, metric: Metric, by: str | None, told: Callable[[float], None]) -> Outcome:
    """The model's first output for every sample, as the metric keeps it; ``told`` hears the share done.

    ``by`` is what samples are sliced by: ``label``, or an array of the dataset. ArtifactRefused where things do not
    fit.
    """
    array = LABELS if by == "label" else by
    if array is not None and array not in dataset.facts:
        have = ", ".join("label" if name == LABELS else name for name in dataset.facts) or "none"
        raise ArtifactRefused(f"worstSlice.by is {by}, and the dataset has no such array; it has {have}")
    if missing := [name for name in metric.labels if name not in dataset.facts]:
        raise ArtifactRefused(f"the dataset has no labels: an array {missing[0]} with one for each sample")
    output = engine.signature.outputs[0].name
    parts: list[Outcome] = []
    for batch in dataset.batches(BATCH):
        (found,) = engine.infer(batch.inputs, [output])
        labels = [batch.facts[name] for name in metric.labels]
        if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in labels):
            raise ArtifactRefused(
                f"the labels hold NaN or an infinity in or after sample {batch.first}; put a number there"
            )
        samples = len(labels[0])
        if found.ndim == 0 or len(found) != samples:
            raise ArtifactRefused(
                f"output {output} has shape {list(found.shape)} for {samples} samples; its first dimension must be "
                "theirs"
            )
        try:
            rows = metric.outcomes(found, *labels)
        except InvalidInput as error:
            raise ArtifactRefused(f"output {output} and the labels do not fit: {error}") from error
        named = batch.facts[array].astype(np.str_) if array is not None else np.full(samples, "")
        classes = _classes(found, batch.facts.get(LABELS))
        parts.append(Outcome(rows, *_looked_at(found), named, classes))
        told((batch.first + samples) / dataset.samples)
    joined = [np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Outcome)]
    return Outcome(*joined)


def _looked_at(output: Array) -> tuple[Array, Array, Array, Array]:
    flat = output.reshape(len(output), -1).astype(np.float64)
    is_finite = np.isfinite(flat)
    kept = np.where(is_finite, flat, 0.0)
    classes = output.ndim == 2 and output.shape[1] > 1
    answers = np.where(is_finite, flat, -np.inf).argmax(axis=1).astype(np.float64) if classes else kept.mean(axis=1)
    return answers, np.asarray(is_finite.all(axis=1)), kept.min(axis=1), kept.max(axis=1)


def _classes(output: Array, labels: Array | None) -> npt.NDArray[np.int64]:
    """Of each sample, where both output and labels are classes: -1 where not."""
    scores = output.ndim == 2 and output.shape[1] > 1 and output.dtype.kind == "f"
    itself = output.size == len(output) and output.dtype.kind in "iu" and bool((output >= 0).all())
    if (
        labels is None
        or not (scores or itself)
        or labels.ndim != 1
        or labels.dtype.kind not in "iu"
        or labels.min() < 0
    ):
        return np.full(len(output), -1, np.int64)
    return labels.astype(np.int64)


def quality(source: Outcome, variant: Outcome, metric: Metric, rule: Rule) -> Quality:
    """The variant beside its source on the same samples."""
    everything = np.arange(len(source.rows))
    drop, bound = _drop(source, variant, metric, rule.alpha, everything)
    low, high = float(source.low.min()), float(source.high.max())
    width = high - low
    value = metric.value(variant.rows)
    return Quality(
        value=-value if metric.is_loss else value,
        drop=drop,
        drop_upper_bound=bound,
        samples=len(everything),
        disagreement=float(_differ(source.answers, variant.answers).mean()),
        churn=float((source.rows != variant.rows).mean()) if metric.is_share else 0.0,
        slices=tuple(
            Slice(name, len(chosen), *_drop(source, variant, metric, rule.alpha, chosen))
            for name, chosen in _sliced(source)
        ),
        not_finite=int((source.finite & ~variant.finite).sum()),
        out_of_range=int(((variant.low < low - width) | (variant.high > high + width)).sum()),
    )


def _sliced(source: Outcome) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Names and positions of the slices."""
    for name in np.unique(source.slices):
        if name:
            yield str(name), np.flatnonzero(source.slices == name)


def _drop(
    source: Outcome, variant: Outcome, metric: Metric, alpha: float, chosen: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Estimate and upper bound."""
    before, after = source.rows[chosen], variant.rows[chosen]
    drop = metric.value(before) - metric.value(after)
    if np.isnan(drop):
        return drop, drop
    if metric.is_share:
        lost = int(((before == 1) & (after == 0)).sum())
        gained = int(((before == 0) & (after == 1)).sum())
        return drop, intervals.paired_drop(lost, gained, len(chosen), alpha)

    def resampled(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        flat = positions.reshape(-1, positions.shape[-1])
        drops = [metric.value(before[one]) - metric.value(after[one]) for one in flat]
        return np.array(drops).reshape(positions.shape[:-1])

    return drop, intervals.bootstrap_drop(len(chosen), resampled, alpha)


def _differ(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where answers differ: classes at all, numbers by more than a hundredth of their range."""
    if np.array_equal(one, np.rint(one)) and np.array_equal(other, np.rint(other)):
        return np.asarray(one != other)
    return np.asarray(np.abs(one - other) > 0.01 * max(float(np.ptp(one)), 1e-12))
