"""Who may share a call of the engine, and how requests are put together and answers taken apart.

A row is one step along the first dimension. Requests share a call when they have rows to share (the same number in
each input, from 1 up to the model's limit) and every input agrees in the other dimensions; nothing is padded, so
ragged requests never meet. The engine computes the union of the outputs they ask for; each gets its own, in its own
order. Identifiers, parameters and the rest of a request never enter the batch and cannot get lost in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.scheduling.job import Job, Key
from serving.tensors import Array, Tensor


def rows_and_key(inputs: Mapping[str, Array], max_rows: int) -> tuple[int, Key | None]:
    """How many rows a request has, and the key that those it may share a call with have too; None: it goes alone."""
    shapes = [array.shape for array in inputs.values()]
    rows = shapes[0][0] if shapes[0] else 1
    if not 0 < rows <= max_rows:
        return rows, None
    for shape in shapes:
        if not shape or shape[0] != rows:
            return rows, None
    return rows, tuple([shape[1:] for shape in shapes])


def joined(jobs: Sequence[Job]) -> tuple[dict[str, Array], list[str]]:
    """The inputs of one call for all of them, and the outputs that it must compute."""
    if len(jobs) == 1:
        return jobs[0].inputs, [spec.name for spec in jobs[0].outputs]
    inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
    return inputs, list(dict.fromkeys(spec.name for job in jobs for spec in job.outputs))


def fits(rows: int, arrays: Sequence[Array]) -> bool:
    """Whether these outputs of several requests can be taken apart again: each has as many rows as the inputs had."""
    return all([array.shape[:1] == (rows,) for array in arrays])


def parted(jobs: Sequence[Job], names: Sequence[str], arrays: Sequence[Array]) -> list[list[Tensor]]:
    """Each one's outputs. They are views: whoever keeps one for long keeps the whole batch's, and should copy."""
    if len(jobs) == 1:
        return [[Tensor(spec.name, spec.datatype, array) for spec, array in zip(jobs[0].outputs, arrays, strict=True)]]
    of, answers, at = dict(zip(names, arrays, strict=True)), [], 0
    for job in jobs:
        end = at + job.rows
        answers.append([Tensor(spec.name, spec.datatype, of[spec.name][at:end]) for spec in job.outputs])
        at = end
    return answers
