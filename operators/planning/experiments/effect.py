"""How much more one arm is worth than another, with an interval that may be looked at as often as one likes.

The interval is an asymptotic confidence sequence: where units are many, the true difference lies in it at every look
at once with probability 1 - α (I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy and A. Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024). With N units in all, deviation σ and
a width η,

    half = σ √( 2 (N η² + 1) / (N² η²) · ln( √(N η² + 1) / α ) ),

which is narrowest at a number of units of our choice and never far from that elsewhere. σ² / N is the variance of the
difference of means. What is known of a unit beforehand (x) takes out of its outcome what that explains: y - θ x with
θ = cov(x, y) / var(x) over both arms (CUPED: A. Deng, Y. Xu, R. Kohavi and T. Walker, WSDM 2013).
"""

from __future__ import annotations

import dataclasses
import math

from operators.api.outcomes import Sums

ENOUGH = 100
"""Units of each arm before anything is said: the interval's promise is one about many."""
NARROWEST_AT = 10_000
"""Units at which the interval is narrowest beside what it could be."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """By how much the treatment's mean outcome is above the control's; the truth lies between the bounds."""

    value: float
    low: float
    high: float
    explained: float = 0.0
    """Share of the variance that was known beforehand, between 0 and 1."""

    @property
    def is_found(self) -> bool:
        """Whether there is a difference at all."""
        return self.low > 0 or self.high < 0


def effect(control: Sums, treatment: Sums, alpha: float) -> Effect | None:
    """The difference at confidence 1 - ``alpha``; None as long as either arm has fewer than ``ENOUGH`` units."""
    if min(control.n, treatment.n) < ENOUGH:
        return None
    theta = _theta(control, treatment)
    value = treatment.mean - control.mean - theta * (treatment.x / treatment.n - control.x / control.n)
    raw, left = (_variance(control, treatment, one) for one in (0.0, theta))
    half = half_width(math.sqrt(left * (control.n + treatment.n)), control.n + treatment.n, alpha)
    return Effect(value, value - half, value + half, 1 - left / raw if raw else 0.0)


def half_width(sigma: float, n: float, alpha: float) -> float:
    """Of the interval after ``n`` observations of deviation ``sigma``."""
    eta2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / NARROWEST_AT
    spread = n * eta2 + 1
    return sigma * math.sqrt(2 * spread / (n * n * eta2) * math.log(math.sqrt(spread) / alpha))


def _theta(control: Sums, treatment: Sums) -> float:
    """How much y moves with x, within arms."""
    together = sum(arm.xx - arm.x**2 / arm.n for arm in (control, treatment))
    return sum(arm.xy - arm.x * arm.y / arm.n for arm in (control, treatment)) / together if together > 0 else 0.0


def _variance(control: Sums, treatment: Sums, theta: float) -> float:
    return control.variance(theta) / control.n + treatment.variance(theta) / treatment.n
