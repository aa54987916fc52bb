"""Do two revisions answer alike? A function of both answers and of what the Model's contract says about them.

- *Ranks* (``top``, 1 where the contract names labels): the classes with the highest scores, row by row of the first
  output, in any order. Scores of another revision are other numbers, and may be; what people read is the class. Of
  equal scores either may come first.
- *Findings* (the contract says detections): picture by picture, what one revision is sure of must be found by the other
  one, with the same class and at least half alike, by intersection over union and of poses by OKS. "Found" is half as
  sure, for a finding at the threshold itself is now shown and now not, by any two revisions.
- Everything else: the same numbers within a tolerance, a share of the greatest number that either tensor has. It grows
  with the noise of the datatype; integers that are no quantized numbers, texts and booleans are equal or not.

Names, shapes and datatypes of all outputs are always the same, or the revisions do not agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.tensors import Tensor, listed

if TYPE_CHECKING:
    import numpy.typing as npt

    from serving.translation.detections import Findings, Wanted

TOLERANCES: Mapping[str, float] = {
    "FP64": 1e-6,
    "FP32": 1e-3,
    "FP16": 1e-2,
    "BF16": 3e-2,
    "INT8": 2 / 127,
    "UINT8": 2 / 255,
}
"""Shares of the greatest number. FP32 has room for another order of sums and for TF32; eight bits for two steps."""
_EIGHT_BITS = {"INT8": 127.0, "UINT8": 255.0}
_ALIKE = 0.5
_LESS_SURE = 0.5
"""How sure the other one must be, as a share of what is shown."""
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class How:
    """By what answers are compared."""

    top: int = 0
    """The first output is scores [..., classes], of which so many of the best are looked at; 0: it is none."""
    detections: Wanted | None = None
    """How the first output is read, where it is one of detections."""
    tolerance: float | None = None
    """In place of the one of the datatype."""

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> How:
        """What an operator says (``planning.comparing``): of ``spec.contract``, and of how it is compared."""
        output = asked.get("output") or {}
        wanted = None
        if output.get("detections") is not None:
            from serving.translation.detections import Wanted

            wanted = Wanted.of(asked)
        top = 0 if wanted else asked.get("top") or bool(output.get("labels"))
        return cls(int(top), wanted, asked.get("tolerance"))


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor], how: How) -> str:
    """How ``theirs`` does not agree with ``ours``, in a clause; empty where it does. ``ours`` has the model's order."""
    given = {tensor.name: tensor for tensor in theirs}
    names = [tensor.name for tensor in ours]
    if given.keys() != set(names):
        return f"its outputs are {listed(sorted(given))}, not {listed(names)}"
    for one in ours:
        other = given[one.name]
        if (one.datatype, one.array.shape) != (other.datatype, other.array.shape):
            form, before = (f"{t.datatype} {list(t.array.shape)}" for t in (other, one))
            return f"output '{one.name}' is {form}, not {before}"
    if (how.top or how.detections) and ours:
        pair = ours[0], given[ours[0].name]
        return _other_findings(*pair, how.detections) if how.detections else _other_ranks(*pair, how.top)
    return next((said for one in ours if (said := _other_values(one, given[one.name], how.tolerance))), "")


def told(outputs: Sequence[Tensor]) -> list[dict[str, Any]]:
    """An answer in short, as values of JSON: of each output its first values."""
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.array.shape),
            "data": [_short(value) for value in _numbers(tensor).reshape(-1)[:_SHOWN].tolist()]
            + ([f"… {tensor.array.size - _SHOWN} more"] if tensor.array.size > _SHOWN else []),
        }
        for tensor in outputs
    ]


def _other_ranks(one: Tensor, other: Tensor, top: int) -> str:
    if one.array.ndim == 0 or one.array.size == 0:
        return ""
    ours, theirs = (_numbers(t).astype(np.float64).reshape(-1, t.array.shape[-1]) for t in (one, other))
    broken = np.isnan(ours).any(axis=1) != np.isnan(theirs).any(axis=1)
    ours, theirs = (np.where(np.isnan(scores), np.inf, scores) for scores in (ours, theirs))
    mine, others = _best(ours, top), _best(theirs, top)
    # A tie is decided by the order of the classes, which says nothing: what is on top here may be on top there.
    alike = (_lowest(ours, others) >= _lowest(ours, mine)) | (_lowest(theirs, mine) >= _lowest(theirs, others))
    apart = np.flatnonzero(broken | ~alike)
    if not len(apart):
        return ""
    row = apart[0]
    new, gone = np.setdiff1d(others[row], mine[row]), np.setdiff1d(mine[row], others[row])
    said = "is not a number" if broken[row] else f"has class {_few(new)} on top, not {_few(gone)}"
    return f"row {row} of output '{one.name}' {said} ({len(apart)} of {len(ours)} rows)"


def _best(scores: npt.NDArray[Any], top: int) -> npt.NDArray[Any]:
    """The ``top`` classes, or all, with the highest ``scores`` [rows, classes], in no order."""
    classes = scores.shape[1]
    return (
        np.argpartition(scores, -top, axis=1)[:, -top:]
        if top < classes
        else np.tile(np.arange(classes), (len(scores), 1))
    )


def _few(classes: npt.NDArray[Any]) -> str:
    """``3, 5``; no more than a reader takes in."""
    return ", ".join(map(str, classes[:_SHOWN]))


def _lowest(scores: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[rows]: the lowest score of ``classes`` [rows, n]."""
    lowest: npt.NDArray[Any] = np.take_along_axis(scores, classes, axis=1).min(axis=1)
    return lowest


def _other_findings(one: Tensor, other: Tensor, wanted: Wanted) -> str:
    from serving.errors import InvalidInput
    from serving.translation.detections import findings

    less = dataclasses.replace(wanted, least_score=wanted.least_score * _LESS_SURE)
    try:
        for picture, (ours, theirs) in enumerate(zip(_numbers(one), _numbers(other), strict=True)):
            missed = _missed(findings(ours, wanted), findings(theirs, less), wanted.joints)
            new = _missed(findings(theirs, wanted), findings(ours, less), wanted.joints)
            if missed or new:
                return f"picture {picture}: {missed} findings are missing, {new} are new"
    except InvalidInput as error:
        return str(error)
    return ""


def _missed(sure: Findings, found: Findings, joints: int) -> int:
    """How many of ``sure``, the best first, have none of their own in ``found``."""
    from serving.translation.detections import JOINTS, iou, oks

    alike = np.where(sure.classes[:, None] == found.classes, iou(sure.boxes, found.boxes), -1.0)
    if joints == JOINTS and len(sure) and len(found):
        marked = found.joints.copy()
        marked[..., 2] = 1.0  # one that is hidden by both is compared as well
        alike = np.minimum(alike, oks(sure.joints, marked, found.boxes))
    missed = 0
    for row in range(len(sure)):
        best = int(alike[row].argmax()) if len(found) else -1
        if best < 0 or alike[row, best] < _ALIKE:
            missed += 1
        else:
            alike[:, best] = -1.0
    return missed


def _other_values(one: Tensor, other: Tensor, tolerance: float | None) -> str:
    allowed = TOLERANCES.get(one.datatype)
    ours, theirs = _numbers(one), _numbers(other)
    if allowed is None:
        apart = int((ours != theirs).sum())
        return f"{apart} of {ours.size} values of output '{one.name}' are not equal" if apart else ""
    allowed = allowed if tolerance is None else tolerance
    finite = np.isfinite(ours) & np.isfinite(theirs)
    unlike = ~finite & ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    if unlike.any():
        return f"{int(unlike.sum())} values of output '{one.name}' are not numbers in one of both answers"
    ours, theirs = ours[finite], theirs[finite]
    scale = _EIGHT_BITS.get(one.datatype) or max(np.abs(ours).max(initial=0.0), np.abs(theirs).max(initial=0.0))
    # Halves, because the difference of two very large numbers is none.
    most = 2 * (np.abs(ours / 2 - theirs / 2).max(initial=0.0) / scale) if scale else 0.0
    if most <= allowed * (1 + 1e-9):
        return ""
    return f"output '{one.name}' differs by {most:.3g} of its greatest value, {allowed:.3g} is allowed"


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """Its values; floats, and eight bits that may stand for them, as float64."""
    if tensor.datatype == "BF16":
        return (tensor.array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return tensor.array.astype(np.float64) if tensor.datatype in TOLERANCES else tensor.array


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else str(value)
    return value.decode(errors="replace")[:80] if isinstance(value, bytes) else value
