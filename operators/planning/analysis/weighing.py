"""Evidence, one tick further: what the data plane counted since the last one is weighed and remembered.

Every metric has e-processes against two hypotheses:

- "no worse than the stable one": ``odds.log_e`` for each of ``WORSE`` (and each edge of latency), each divided by the
  design effect, added up over sources and windows. Their mean is an e-process, whatever the true increase is.
- "worse by what is not tolerated": for errors ``margin.log_e``; for latency ``odds.log_e`` for each of ``BETTER``,
  where the candidate is held against a later edge than the stable.

Agreement is held against a share that is allowed (``agreement``), from both sides and by itself. What users say of
answers is weighed as errors are, but without the design effect: pods that stall make no answer wrong.

Edges are chosen from all that the stable's sources have counted before, so never from requests that they judge.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

from operators.api.evidence import Evidence, Level, MetricEvidence, Tally
from operators.api.model import Analysis
from operators.api.plan import MOST_SERVERS, RouteObserved
from operators.planning.analysis import agreement, dispersion, edges, margin, odds, windows
from operators.planning.analysis.windows import Table, Window

WORSE = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Odds ratios that the evidence against "no worse" is spread over: any of them is found nearly as fast as if known."""
BETTER = (1 / 1.5, 1 / 2, 1 / 3, 1 / 10)
"""Odds ratios for the evidence against "slower than allowed"."""
WINDOW_S = 5.0
"""Looks that are nearer to each other than this are one."""

_FROM_THE_BEGINNING: tuple[tuple[Literal["agreement", "feedback"], int], ...] = (
    ("agreement", len(BETTER)),
    ("feedback", 1),
)
"""Metrics that need nothing to be known before, and how many e-values each has for "worse than allowed"."""

Servers = Mapping[str, tuple[int, ...]]
"""Counters of the stable's servers by name, as ``Evidence.server_marks`` has them."""


def begin(
    route: RouteObserved | None, stable: str, candidate: str, settings: Analysis, now: datetime.datetime
) -> Evidence:
    """No evidence yet, and what the stable's sources have counted so far as history.

    Best called when the candidate's replicas begin to start: until it gets traffic, windows tell how the stable's own
    counts scatter and what its traffic is, which the published detection time needs.
    """
    history = windows.total(route, stable)
    at = now.isoformat(timespec="milliseconds")
    asked = _margin("errors", settings)
    errors = MetricEvidence(name="errors", against_good=(0.0,) * len(WORSE), against_bad=(0.0,), margin=asked)
    evidence = Evidence(
        stable=stable,
        candidate=candidate,
        began=at,
        at=at,
        weight=windows.share(route, stable, candidate),
        base=(history.answered, history.failed),
        metrics=(errors,),
    )
    return _marked(_fresh(evidence, route), route, settings, now)


def weigh(evidence: Evidence, route: RouteObserved | None, settings: Analysis, now: datetime.datetime) -> Evidence:
    """``evidence`` with what was counted since its last window. The same object where there is nothing new."""
    if (renewed := _renewed(evidence, route, settings)) is not evidence:
        # What was counted meanwhile was counted under both.
        return _marked(renewed, route, settings, now)
    elapsed_s = (now - datetime.datetime.fromisoformat(evidence.at)).total_seconds()
    share = windows.share(route, evidence.stable, evidence.candidate)
    marks = windows.marks(route, evidence.stable, evidence.candidate, evidence.edges)
    if route is None or not marks or share is None:
        return evidence
    if share != evidence.weight:
        # What was counted meanwhile was counted at both weights.
        return _marked(_unpaired(evidence), route, settings, now)
    if elapsed_s < WINDOW_S or marks == evidence.marks:
        return evidence
    found = windows.between(evidence.marks, marks)
    effect, servers = design_effect(evidence), _servers(evidence, route)
    metrics = [_weighed(metric, found, evidence, effect, settings) for metric in evidence.metrics]
    evidence = evidence.model_copy(
        update={
            "metrics": tuple(metrics),
            "levels": _levels(evidence, route, servers, found),
            "observed_s": round(evidence.observed_s + elapsed_s, 3) if found else evidence.observed_s,
            "answered": evidence.answered + sum(w.errors.stable + w.errors.candidate for w in found),
            "base": (
                evidence.base[0] + sum(w.errors.stable for w in found),
                evidence.base[1] + sum(w.errors.stable_bad for w in found),
            ),
        }
    )
    return _marked(evidence, route, settings, now, servers)


def _margin(name: str, settings: Analysis) -> tuple[float, ...]:
    """What is not tolerated of a metric, as numbers; empty where it is not judged."""
    limit, compared = settings.max_latency_increase, settings.agreement
    if name == "errors":
        return (settings.max_error_rate_increase,)
    if name == "feedback":
        return () if settings.feedback is None else (settings.feedback.max_increase,)
    if name == "latency":
        return () if limit is None else (limit.percentile, limit.ratio)
    return () if compared is None else (compared.max_disagreement, compared.tolerance or 0.0, compared.top or 0)


def _renewed(evidence: Evidence, route: RouteObserved | None, settings: Analysis) -> Evidence:
    """``evidence`` without what was weighed under another margin than that of ``settings``.

    Of errors and feedback "no worse than the stable one" does not depend on it, and stays. Edges of latency follow from
    it, and agreement is held against it from both sides: these begin anew. The same object where no margin is another.
    """
    found = [(metric, _margin(metric.name, settings)) for metric in evidence.metrics]
    if all(metric.margin == asked for metric, asked in found):
        return evidence
    kept = tuple(
        metric if metric.margin == asked else metric.model_copy(update={"against_bad": (0.0,), "margin": asked})
        for metric, asked in found
        if metric.margin == asked or (asked and metric.name in ("errors", "feedback"))
    )
    if evidence.edges and all(metric.name != "latency" for metric in kept):
        return _fresh(evidence.model_copy(update={"metrics": kept, "edges": ()}), route)
    return _unpaired(evidence.model_copy(update={"metrics": kept}))


def design_effect(evidence: Evidence) -> float:
    """How much more than independent requests the stable's counts scatter, in whatever is compared."""
    told = [evidence.before, *(level.scatters for level in evidence.levels)]
    return dispersion.effect(one for scatters in told for one in scatters)


def _fresh(evidence: Evidence, route: RouteObserved | None) -> Evidence:
    """``evidence`` that knows of scatter only what the stable's servers have counted since they began."""
    servers = tuple(_servers(evidence, route).values())
    return evidence.model_copy(update={"before": dispersion.scatters(servers), "levels": dispersion.fresh()})


def _marked(
    evidence: Evidence,
    route: RouteObserved | None,
    settings: Analysis,
    now: datetime.datetime,
    servers: Servers | None = None,
) -> Evidence:
    """``evidence`` from which the next window begins now; edges are chosen once there is enough to choose from."""
    limit = settings.max_latency_increase
    history = windows.total(route, evidence.stable).latency if limit and not evidence.edges else {}
    if chosen := edges.choose(history, limit):
        good, bad = (0.0,) * (len(chosen) * len(WORSE)), (0.0,) * len(BETTER)
        tallies = (Tally(),) * len(chosen)
        asked = _margin("latency", settings)
        latency = MetricEvidence(name="latency", against_good=good, against_bad=bad, tallies=tallies, margin=asked)
        update = {"edges": chosen, "metrics": (*evidence.metrics, latency)}
        evidence = _fresh(evidence.model_copy(update=update), route)
        servers = None
    evidence = _with_asked(evidence, settings)
    servers = _servers(evidence, route) if servers is None else servers
    return evidence.model_copy(
        update={
            "at": now.isoformat(timespec="milliseconds"),
            "weight": windows.share(route, evidence.stable, evidence.candidate),
            "marks": windows.marks(route, evidence.stable, evidence.candidate, evidence.edges),
            "servers": tuple(servers),
            "server_marks": tuple(servers.values()),
        }
    )


def _with_asked(evidence: Evidence, settings: Analysis) -> Evidence:
    """``evidence`` that compares answers, and counts what users say of them, where that is asked for by now."""
    known = {metric.name for metric in evidence.metrics}
    new = [
        MetricEvidence(name=name, against_good=(0.0,) * len(WORSE), against_bad=(0.0,) * many, margin=asked)
        for name, many in _FROM_THE_BEGINNING
        if (asked := _margin(name, settings)) and name not in known
    ]
    return evidence.model_copy(update={"metrics": (*evidence.metrics, *new)}) if new else evidence


def _compared(metric: MetricEvidence, found: Sequence[Window], allowed: float) -> MetricEvidence:
    agreed, disagreed = (sum(window.compared[place] for window in found) for place in (0, 1))
    both = agreed + disagreed

    def grown(logs: Sequence[float], alternatives: Sequence[float]) -> tuple[float, ...]:
        pairs = zip(logs, alternatives, strict=True)
        return tuple(round(log + agreement.log_e(both, disagreed, allowed, ratio), 5) for log, ratio in pairs)

    compared, before = metric.tallies[0].candidate
    return metric.model_copy(
        update={
            "against_good": grown(metric.against_good, WORSE),
            "against_bad": grown(metric.against_bad, BETTER),
            "tallies": (Tally(candidate=(compared + both, before + disagreed)),),
        }
    )


def _weighed(
    metric: MetricEvidence, found: Sequence[Window], evidence: Evidence, effect: float, settings: Analysis
) -> MetricEvidence:
    if metric.name == "agreement":
        return metric if settings.agreement is None else _compared(metric, found, settings.agreement.max_disagreement)
    good, bad = list(metric.against_good), list(metric.against_bad)
    tallies = metric.tallies
    if metric.name == "feedback":
        effect = 1.0
    for window in found:
        tables = {"errors": (window.errors,), "feedback": (window.judged,)}.get(metric.name, window.slower)
        for place, table in enumerate(tables):
            _add(good, place * len(WORSE), table, WORSE, effect)
        if metric.name != "latency":
            stable = evidence.base if metric.name == "errors" else metric.tallies[0].stable
            bad[0] += margin.log_e(tables[0], metric.margin[0], expected(stable)) / dispersion.divisor(effect)
        else:
            _add(bad, 0, window.too_slow[0], BETTER, effect)
        tallies = tuple(_tallied(*pair) for pair in zip(tallies, tables, strict=True))
    return metric.model_copy(
        update={
            "against_good": tuple(round(one, 5) for one in good),
            "against_bad": tuple(round(one, 5) for one in bad),
            "tallies": tallies,
        }
    )


def _add(logs: list[float], start: int, table: Table, alternatives: Sequence[float], effect: float) -> None:
    for place, ratio in enumerate(alternatives, start):
        logs[place] += odds.log_e(table, ratio) / dispersion.divisor(effect, ratio)


def expected(stable: tuple[int, int]) -> float:
    """The chance of a bad answer that a good candidate is expected to have: the stable's so far."""
    answered, bad = stable
    return (bad + 0.5) / (answered + 1)


def _tallied(tally: Tally, table: Table) -> Tally:
    return Tally(
        stable=(tally.stable[0] + table.stable, tally.stable[1] + table.stable_bad),
        candidate=(tally.candidate[0] + table.candidate, tally.candidate[1] + table.candidate_bad),
    )


def _levels(evidence: Evidence, route: RouteObserved, servers: Servers, found: Sequence[Window]) -> tuple[Level, ...]:
    """Counts of the stable's servers since the last window, where all of them are known."""
    sources = {mark.source for mark in evidence.marks}
    if sources != route.counts.keys() or tuple(servers) != evidence.servers or len(found) != len(sources):
        return dispersion.unpaired(evidence.levels)
    grown = [windows.grown(*pair) for pair in zip(evidence.server_marks, servers.values(), strict=True)]
    each = tuple(one for one in grown if one is not None)
    return (
        dispersion.counted(evidence.levels, each) if len(each) == len(grown) else dispersion.unpaired(evidence.levels)
    )


def _unpaired(evidence: Evidence) -> Evidence:
    return evidence.model_copy(update={"levels": dispersion.unpaired(evidence.levels)})


def _servers(evidence: Evidence, route: RouteObserved | None) -> Servers:
    return windows.by_server(route, evidence.stable, evidence.edges, MOST_SERVERS)
