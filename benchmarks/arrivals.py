"""When requests leave: a Poisson process, the arrivals of many independent clients.

The gaps are exponential with mean ``1 / rate``. The schedule is made before the first request leaves and is a
function of the seed, so two systems can be given the very same one.
"""

from __future__ import annotations

import numpy as np


def poisson(rate: float, duration_s: float, seed: int) -> tuple[float, ...]:
    """Moments in ``[0, duration_s)``, in order, at ``rate`` a second on average."""
    random = np.random.default_rng(seed)
    count = random.poisson(rate * duration_s)
    return tuple(float(moment) for moment in np.sort(random.uniform(0.0, duration_s, count)))
