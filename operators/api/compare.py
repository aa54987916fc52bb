"""By what the answers of two models, or of two revisions of one, are found to agree."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from operators.api.base import Strict


class Compare(Strict):
    """By what is found where the contract of the Model says detections, by the class on top where it has labels, else
    by the numbers.
    """

    tolerance: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far numbers may be apart, as a share of the greatest one of the answer; left out: by their datatype, 0.001
    for FP32. Where classes, ranks or detections are compared it says nothing.
    """
    top: Annotated[int, Field(ge=1, le=1000)] | None = None
    """For what ranks or recommends: how many of the best must be the same ones, in any order, by the scores along the
    last axis of the first output. Left out: 1 where the contract has labels.
    """
