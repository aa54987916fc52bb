"""What is known of a candidate revision beside the stable one: the memory of a rollout's analysis, kept in status.

It holds logarithms of e-values and the counters at which the next window begins, so that an operator killed anywhere
goes on from the last window. Small on purpose: it is written with every window.
"""

from __future__ import annotations

from typing import Literal

from operators.api.base import Seen


class Edge(Seen):
    """A latency that stable and candidate are compared at, chosen from the stable's own history."""

    above_us: int
    """What is slower than this counts as slow, microseconds."""
    allowed_us: int
    """What of the candidate is slower than this counts as too slow for a promotion."""
    share: float
    """Share of the stable's requests that were slow before the rollout."""
    share_if_slower: float
    """Share that would have been slow, were all requests slower by the allowed ratio."""


class Mark(Seen):
    """Counters of one source where the last window ended."""

    source: str
    """A process of a router."""
    stable: tuple[int, ...]
    """Answered, failed, answered well, and of these slower than each edge."""
    candidate: tuple[int, ...]
    """The same, and then slower than each edge with the allowed ratio."""
    compared: tuple[int, ...] = ()
    """Mirrored requests on which the candidate agreed and disagreed; none where it is not known."""
    judged: tuple[int, ...] = ()
    """Answers that users told of, and wrong ones among them: the stable's, then the candidate's; none where they are
    not known.
    """


class Tally(Seen):
    """What was counted in all windows that gave evidence."""

    stable: tuple[int, int] = (0, 0)
    """Requests, and bad ones among them."""
    candidate: tuple[int, int] = (0, 0)
    """The same of the candidate."""


class MetricEvidence(Seen):
    """One thing that is compared."""

    name: Literal["errors", "latency", "agreement", "feedback"]
    """What is compared."""
    against_good: tuple[float, ...]
    """Natural logarithms of the e-values against "no worse than the stable one", one for each alternative."""
    against_bad: tuple[float, ...]
    """The same against "worse than allowed"."""
    tallies: tuple[Tally, ...] = (Tally(),)
    """What it rests on; of latency one for each edge."""
    margin: tuple[float, ...] = ()
    """What is not tolerated, as it is weighed: sums under another margin are not mixed."""


class Scatter(Seen):
    """How counts of equals differ, added up over windows; each counts by its bad answers."""

    bad: float = 0.0
    """The weight of all windows."""
    seen: float = 0.0
    """Pearson's statistic of each window over its degrees of freedom: near 1 for independent requests."""
    squared: float = 0.0
    """The square of that, less what is expected of it by chance."""
    variance: float = 0.0
    """Of ``seen``, were requests independent."""


class Level(Seen):
    """Windows of one length."""

    scatters: tuple[Scatter, ...] = ()
    """Of failures, then of slow answers by edge."""
    servers: tuple[tuple[int, ...], ...] = ()
    """Counters by server of a first half that waits for its second; empty where none waits."""


class Evidence(Seen):
    """All of it, of one pair of workloads."""

    stable: str
    """Workload of the stable revision."""
    candidate: str
    """Workload of the candidate revision."""
    began: str
    """When counting began, RFC 3339."""
    at: str
    """When the last window ended, RFC 3339."""
    weight: int | None = None
    """The candidate's share of the traffic at that moment as the data plane reported it, in 0.01 %; left out where it
    reported none.
    """
    observed_s: float = 0.0
    """Seconds in all windows in which the stable answered, those before the candidate had traffic included."""
    answered: int = 0
    """Requests in them, of both."""
    base: tuple[int, int] = (0, 0)
    """The stable's requests and failures since its sources began to count."""
    edges: tuple[Edge, ...] = ()
    """What latency is compared at, the percentile that the spec names first; empty until the stable has answered enough
    to choose.
    """
    marks: tuple[Mark, ...] = ()
    """By source."""
    metrics: tuple[MetricEvidence, ...] = ()
    """By metric."""
    servers: tuple[str, ...] = ()
    """Servers of the stable that are compared with each other."""
    server_marks: tuple[tuple[int, ...], ...] = ()
    """Of each of them where the last window ended: answered, failed, answered well, of these slower than each edge."""
    before: tuple[Scatter, ...] = ()
    """Of these servers, before the rollout."""
    levels: tuple[Level, ...] = ()
    """Windows of 1, 2, 4, 8 … ticks."""
