"""Scores become probabilities. What is no distribution yet is taken for logits: p_i = exp(s_i) / sum_j exp(s_j)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def probabilities(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of scores [n, classes]; as they are where each row is at least 0 and sums to 1 within a thousandth."""
    rows = scores.astype(np.float64)
    if (rows >= 0).all() and (np.abs(rows.sum(axis=-1) - 1) < 1e-3).all():
        return rows
    exponentials = np.exp(rows - rows.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
