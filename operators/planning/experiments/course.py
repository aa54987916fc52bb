"""The course of an Endpoint's experiment or bandit: one call adds what routers newly counted, and says what follows.

What it has to remember stands in ``ExperimentStatus``. Another metric, other arms, weights or assignment are another
experiment, which begins at nothing: units that were assigned by other rules are no part of it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence

from operators.api.base import duration_s
from operators.api.endpoint import Endpoint
from operators.api.experiment import ArmStatus, ExperimentStatus, OutcomeMark, OutcomeMemory
from operators.api.outcomes import Tally, Told
from operators.api.plan import FULL_WEIGHT, Event
from operators.planning.experiments import bandit, verdict
from operators.planning.times import parse_time, timestamp

LOOK_S = 5.0
"""How often sums are added, at most."""
INTERVAL_S = 60.0
"""How often a bandit moves its shares, where there is something new."""
HEARD = 20
"""Outcomes of each arm before a bandit moves its shares for the first time."""
_MARKS = 32
"""Sources that are remembered. One that is gone never comes back under its name."""


def follow(
    endpoint: Endpoint, told: Mapping[str, Told], complete: bool, now: datetime.datetime
) -> tuple[ExperimentStatus, tuple[Event, ...]] | None:
    """Where the experiment is now, and what was decided; None where the spec has none.

    ``told`` is what is counted, by source; ``complete``: every arm answers, so that shares mean something.
    """
    settings = endpoint.spec.settings
    if settings is None:
        return None
    before = endpoint.status.experiment
    if before is None or before.memory.of != _hash(endpoint):
        before = _begin(endpoint, now)
    if before.state == "Concluded":
        return before, ()
    memory = _heard(before.memory, {k: of for k, of in told.items() if of.experiment == before.name}, now)
    follows = before.policy == "bandit"
    tallies = [_tally(memory.totals, arm) for arm in before.arms]
    judged = verdict.judge(before.arms, tallies, settings, follows)
    arms = judged.arms
    due = (now - parse_time(memory.moved)).total_seconds() >= INTERVAL_S and memory.at > memory.moved
    if follows and due and complete and judged.state != "Blocked":
        arms = _moved(arms, memory, verdict.is_binary(tallies), before.name)
        recent = {name: Tally.read(flat).times(bandit.KEPT).flat() for name, flat in memory.recent.items()}
        memory = memory.model_copy(update={"recent": recent, "moved": timestamp(now)})
    state, sentence = judged.state, judged.sentence
    over = settings.duration is not None and (now - parse_time(before.began)).total_seconds() >= duration_s(
        settings.duration
    )
    if over:
        sentence = f"concluded after {settings.duration}: {sentence}"
    update = {"state": "Concluded" if over else state, "verdict": sentence, "arms": arms, "memory": memory}
    status = before.model_copy(update=update)
    return status, _events(endpoint.metadata.name, before, status)


def look_again_s(status: ExperimentStatus) -> float | None:
    """When there may be something new."""
    return None if status.state == "Concluded" else LOOK_S


def _hash(endpoint: Endpoint) -> str:
    """Of all that another experiment would differ in."""
    spec = endpoint.spec
    about = {
        "uid": endpoint.metadata.uid,
        "metric": spec.settings and spec.settings.metric,
        "policy": spec.policy,
        "arms": [(arm.name, arm.model, arm.weight) for arm in spec.arms],
        "assignment": spec.assignment and spec.assignment.to_dict(),
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _begin(endpoint: Endpoint, now: datetime.datetime) -> ExperimentStatus:
    spec, at = endpoint.spec, timestamp(now)
    of = _hash(endpoint)
    arms = tuple(ArmStatus(name=arm.name, weight=arm.weight * FULL_WEIGHT // 100) for arm in spec.arms if arm.weight)
    return ExperimentStatus(
        name=hashlib.sha256(f"{of} {at}".encode()).hexdigest()[:8],
        metric=spec.settings.metric if spec.settings else "",
        policy=spec.policy,
        state="Running",
        began=at,
        verdict="",
        arms=arms,
        memory=OutcomeMemory(of=of, at=at, moved=at),
    )


def _tally(sums: Mapping[str, tuple[float, ...]], arm: ArmStatus) -> Tally:
    return Tally.read(sums[arm.name]) if arm.name in sums else Tally()


def _heard(memory: OutcomeMemory, told: Mapping[str, Told], now: datetime.datetime) -> OutcomeMemory:
    """``memory`` with what is new; the same object where nothing is, or it was looked at a moment ago."""
    marks = {mark.source: mark.arms for mark in memory.marks}
    new = {source: {arm: tally.flat() for arm, tally in sorted(of.arms.items())} for source, of in sorted(told.items())}
    if (now - parse_time(memory.at)).total_seconds() < LOOK_S or all(marks.get(one) == new[one] for one in new):
        return memory
    totals = {name: Tally.read(flat) for name, flat in memory.totals.items()}
    recent = {name: Tally.read(flat) for name, flat in memory.recent.items()}
    for source, arms in new.items():
        for arm, flat in arms.items():
            more = Tally.read(flat).since(Tally.read(marks.get(source, {}).get(arm, Tally().flat())))
            totals[arm] = totals.get(arm, Tally()) + more
            recent[arm] = recent.get(arm, Tally()) + more
    kept = [*new.items(), *((source, arms) for source, arms in marks.items() if source not in new)][:_MARKS]
    return memory.model_copy(
        update={
            "totals": {name: tally.flat() for name, tally in totals.items()},
            "recent": {name: tally.flat() for name, tally in recent.items()},
            "marks": tuple(OutcomeMark(source=source, arms=arms) for source, arms in kept),
            "at": timestamp(now),
        }
    )


def _moved(arms: Sequence[ArmStatus], memory: OutcomeMemory, binary: bool, name: str) -> tuple[ArmStatus, ...]:
    """Arms with the shares of the next interval; one that is shown to be worse than the first one is out."""
    shares: tuple[float, ...] = tuple(arm.weight / FULL_WEIGHT for arm in arms)
    out = [arm.out for arm in arms]
    for place, arm in enumerate(arms[1:], 1):
        if not arm.out and arm.effect is not None and arm.effect.high < 0:
            shares = bandit.without(shares, place)
            out[place] = f"worse by {-arm.effect.high:.3g} at least"
    playing = [arm for arm, share in zip(arms, shares, strict=True) if share > 0]
    # Before enough is known of each, shares would move by guesses alone, and away from what the spec says.
    if len(playing) > 1 and all(_tally(memory.totals, arm).units.n >= HEARD for arm in playing):
        seed = int(hashlib.sha256(f"{name} {memory.at}".encode()).hexdigest()[:8], 16)
        known = [_tally(memory.recent, arm).units for arm in arms]
        shares = bandit.shares(known, shares, binary=binary, seed=seed)
    return tuple(
        arm.model_copy(update={"weight": weight, "out": why})
        for arm, weight, why in zip(arms, _weights(shares), out, strict=True)
    )


def _weights(shares: Sequence[float]) -> list[int]:
    """In 0.01 %, and all of it; the largest share takes what rounding leaves."""
    weights = [round(share * FULL_WEIGHT) for share in shares]
    weights[weights.index(max(weights))] += FULL_WEIGHT - sum(weights)
    return weights


def _events(endpoint: str, before: ExperimentStatus, after: ExperimentStatus) -> tuple[Event, ...]:
    """What people should hear of once, however often it is decided."""
    found = []
    words = {"Found": "DifferenceFound", "Blocked": "SampleRatioOff", "Concluded": "ExperimentConcluded"}
    if after.state != before.state and after.state in words:
        word = words[after.state]
        name = f"{endpoint}.{after.name}.{word}"
        found.append(Event(name, "Experiment", word, after.verdict, is_warning=after.state == "Blocked"))
    for arm, then in zip(after.arms, before.arms, strict=True):
        if arm.out and not then.out:
            note = f"arm {arm.name} is taken out: {arm.out}; it gets no more requests"
            found.append(Event(f"{endpoint}.{after.name}.{arm.name}.Out", "Experiment", "ArmTakenOut", note, True))
    return tuple(found)
