"""By which steps traffic moves from the stable revision to the candidate, and when it goes back.

One call looks at where a rollout is and says where it goes from there; what it has to remember stands in
``RolloutStatus``. The candidate gets the share of the present step as far as its ready replicas carry it, and for the
first time when all that it was given are ready. A step ends when the router has reported its share for as long as the
step lasts. After the last one the rest follows, and when all replicas are ready the candidate is the stable revision.
Where an analysis is given it may refuse the candidate at any time, and the last step ends only when it says so.
While the stable revision has no ready replica, whatever the candidate can carry goes there: an answer of a revision
that is not proven yet is better than none.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Literal

from operators.api.base import duration_s
from operators.api.commands import PAUSED, RETRY
from operators.api.evidence import Evidence
from operators.api.model import Agreement, Model, ModelSpec, Rollout, RolloutStep
from operators.api.plan import FULL_WEIGHT
from operators.api.status import RolloutStatus
from operators.planning import capacity, windows
from operators.planning.analysis import published, verdict, weighing
from operators.planning.capacity import Bounds
from operators.planning.times import parse_time, timestamp

State = Literal["Progressing", "Paused", "Waiting"]
HEARD, HEARD_S = 30, 60.0
"""So many mirrored requests are compared, or so long is waited for them, before any client gets an answer of the
candidate. One that is wrong every fifth time is mostly refused within them, one with wrong weights within three.
"""
_UNPROVEN_STEP, _ONLY_STEP = RolloutStep(weight=10), RolloutStep(weight=100)
"""Where no steps are given, with an analysis and without."""

_INCONCLUSIVE = {"rollBack": "it is rolled back", "promote": "it is promoted", "pause": "a person decides"}


class Outcome(enum.Enum):
    """Where a rollout goes."""

    GO_ON = enum.auto()
    PROMOTE = enum.auto()
    ROLL_BACK = enum.auto()


@dataclasses.dataclass(frozen=True)
class Side:
    """What is seen of one of the two revisions."""

    existing: int = 0
    """Replicas that there are to be, as the workload says."""
    ready: int = 0
    weight: int | None = None
    """Traffic that reaches it by the router's report; None: it does not report."""
    recovering: bool = False
    refused: bool = False
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Situation:
    """All that a decision needs to know."""

    settings: Rollout
    within: Bounds
    stable: Side
    candidate: Side
    before: RolloutStatus
    now: datetime.datetime
    begun: bool = False
    """Whether the candidate has had traffic."""
    promote: bool = False
    abort: bool = False
    paused: str = ""
    """By what it is held; empty: by nothing."""
    waits: str = ""
    """What has to end before anything may begin; empty: nothing."""
    others: int = 0
    """Replicas of revisions that only finish what they began."""
    evidence: Evidence | None = None
    """Of both, by now; None: nothing is to be judged."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """Where the rollout goes, and what to remember of it."""

    outcome: Outcome
    status: RolloutStatus
    stable: int
    """Replicas."""
    candidate: int
    look_again_s: float | None = None
    reason: str = ""
    """What is new, in one sentence; empty: nothing."""
    word: str = ""
    """The same in one word."""
    mirrors: bool = False
    """Whether the candidate is to get copies of the stable revision's requests."""


def is_stepped(spec: ModelSpec) -> bool:
    """Whether traffic moves by steps at all."""
    return spec.rollout is not None and spec.replicas > 0


def steps(settings: Rollout) -> tuple[RolloutStep, ...]:
    """The steps there are."""
    return settings.steps or ((_UNPROVEN_STEP,) if settings.analysis else (_ONLY_STEP,))


def units(step: RolloutStep) -> int:
    """A step's share in 0.01 %."""
    return max(1, round(step.weight * FULL_WEIGHT / 100))


def begin(settings: Rollout, revision: str, stable: str, now: datetime.datetime) -> RolloutStatus:
    """What is remembered of a rollout that begins now."""
    at = timestamp(now)
    return RolloutStatus(
        revision=revision,
        stable=stable,
        began=at,
        state="Progressing",
        steps=len(steps(settings)),
        target=units(steps(settings)[0]),
        since=at,
        message=f"revision {revision} is starting",
    )


def is_named(model: Model, annotation: str, rollout: RolloutStatus) -> bool:
    """Whether a command in ``annotation`` means this rollout."""
    said = model.metadata.annotations.get(annotation)
    exact = f"{rollout.revision}@{rollout.began}"
    return said == exact or (said == rollout.revision and annotation != RETRY)


def paused(model: Model) -> str:
    """By what rollouts of ``model`` are held, in a clause; empty: by nothing."""
    if PAUSED in model.metadata.annotations:
        return f"it was paused by hand; `penstock rollout resume {model.metadata.name}` lets it go on"
    return "spec.rollout.paused is set" if model.spec.rollout is not None and model.spec.rollout.paused else ""


def decide(s: Situation) -> Decision:
    """Where the rollout goes from here."""
    before, planned, at = s.before, steps(s.settings), timestamp(s.now)
    step = min(before.step, len(planned))
    reached = _reached(s, _target(s, step))
    since = before.since if reached == before.reached else at
    state, hold, until = _hold(s)
    is_last = step == len(planned) - 1
    if s.evidence is not None and is_last and before.state != "Progressing" == state:
        # A pause is not held against the evidence, which is waited for from the end of the last step's time.
        since = at
    over = _over(planned[step], since) if step < len(planned) and reached else None
    is_over = over is not None and s.now >= over
    judged = _judged(s, over if is_last and is_over and not hold else None)
    if refusal := _refusal(s, reached, since, judged):
        return _rolled_back(s, refusal, judged)
    moved, undecided = "", is_last and judged is not None and judged.decision is not verdict.Decision.PROMOTE
    if s.promote and step < len(planned):
        step, moved = len(planned), "it is promoted by hand"
    elif is_over and not hold and not undecided:
        step, moved = step + 1, f"step {step + 1} of {len(planned)} is over"
    if moved:
        reached, since = False, at
    if not reached and (state == "Waiting") != (before.state == "Waiting"):
        # Time that it had to wait for others is not held against it.
        since = at
    is_whole = s.candidate.ready >= s.within.replicas and not s.candidate.recovering
    if step == len(planned) and is_whole and not s.others and state != "Paused":
        return _promoted(s, judged)
    target = _target(s, step)
    waits = bool(hold) and not (s.begun or s.promote)
    stable, candidate = _replicas(s, s.within.needed(target), waits)
    mirrors = _agreement(s) is not None and bool(s.candidate.ready and s.stable.ready) and not s.others
    since_mirrored = before.mirrored_since or (at if mirrors else "")
    unheard = _unheard(s, since_mirrored)
    weight = _weight(s, target, waits or bool(unheard))
    status = before.model_copy(
        update={
            "state": state,
            "step": step,
            "steps": len(planned),
            "target": target,
            "weight": weight,
            "observed": before.observed if s.candidate.weight is None else s.candidate.weight,
            "reached": reached,
            "since": since,
            "mirrored_since": since_mirrored,
            **_published(s, judged, target),
        }
    )
    message, following, at_ = _told(s, status, hold or unheard, judged if is_over and undecided and not moved else None)
    at_ = until or at_
    look = at_
    if look is None and not reached and candidate:
        look = parse_time(since) + datetime.timedelta(seconds=duration_s(s.settings.deadline))
    look_s = (look - s.now).total_seconds() if look else None
    if s.evidence is not None:
        look_s = min(weighing.WINDOW_S, look_s or weighing.WINDOW_S)
    status = status.model_copy(update={"message": message, "next": following, "next_at": timestamp(at_) if at_ else ""})
    reason = moved and f"revision {before.revision}: {moved}; its share is to be {percent(target)}"
    look_again_s = max(look_s, 0.001) if look_s else None
    word = "RolloutStep" if moved else ""
    return Decision(Outcome.GO_ON, status, stable, candidate, look_again_s, reason, word, mirrors)


def percent(weight: int) -> str:
    """A weight as people say it: 12.5 %."""
    return f"{weight * 100 / FULL_WEIGHT:g} %"


def _target(s: Situation, step: int) -> int:
    """What a step is to give; all where there is no room for a stable revision beside the candidate."""
    planned = steps(s.settings)
    return FULL_WEIGHT if step >= len(planned) or s.within.room < 2 else units(planned[step])


def _over(step: RolloutStep, since: str) -> datetime.datetime:
    return parse_time(since) + datetime.timedelta(seconds=duration_s(step.for_))


def _reached(s: Situation, target: int) -> bool:
    """Whether the router reports what was asked, and that is what the step is to give."""
    if s.candidate.weight is None:
        return s.before.reached and s.before.target == target
    return s.candidate.weight == s.before.weight == target


def _replicas(s: Situation, wanted: int, waits: bool) -> tuple[int, int]:
    if waits or s.others:
        # Nothing shrinks for what has to wait.
        stable = min(s.within.replicas, max(s.stable.existing, s.within.room - s.others))
        return stable, max(0, min(wanted, s.within.room - s.others - stable))
    moved = min(s.before.weight, s.before.observed if s.candidate.weight is None else s.candidate.weight)
    gives = capacity.Side(s.stable.existing, s.stable.ready, FULL_WEIGHT - moved)
    takes = capacity.Side(s.candidate.existing, s.candidate.ready, moved)
    return capacity.divided(s.within, gives, takes, wanted)


def _weight(s: Situation, target: int, waits: bool) -> int:
    """The candidate's share now."""
    ready = s.candidate.ready
    if not ready or s.others:
        return 0
    if not s.before.weight and (ready < s.candidate.existing or s.candidate.recovering):
        return 0
    if not s.stable.ready:
        return FULL_WEIGHT
    return 0 if waits else min(target, s.within.carried(ready))


def _agreement(s: Situation) -> Agreement | None:
    return s.settings.analysis.agreement if s.settings.analysis else None


def _unheard(s: Situation, since: str) -> str:
    """What the candidate's first share waits for, where answers are to be compared before; empty: for nothing."""
    if _agreement(s) is None or s.evidence is None or s.begun or s.promote:
        return ""
    compared = sum(metric.tallies[0].candidate[0] for metric in s.evidence.metrics if metric.name == "agreement")
    if compared >= HEARD or (since and (s.now - parse_time(since)).total_seconds() >= HEARD_S):
        return ""
    return f"{compared} of {HEARD} mirrored requests are compared"


def _hold(s: Situation) -> tuple[State, str, datetime.datetime | None]:
    """Whether a step may begin now; if not, why, and until when where that is known."""
    if s.promote:
        return "Progressing", "", None
    if s.others:
        return "Waiting", "the router still has requests or traffic of an earlier revision", None
    if s.waits:
        return "Waiting", s.waits, None
    if s.paused:
        return "Paused", s.paused, None
    if unknown := windows.unknown(s.settings.windows):
        return "Waiting", f"spec.rollout.windows: {unknown}", None
    opens = windows.opening(s.settings.windows, s.now)
    if opens:
        return "Waiting", f"no window of spec.rollout.windows is open before {timestamp(opens)}", opens
    return "Progressing", "", None


def _judged(s: Situation, over: datetime.datetime | None) -> verdict.Verdict | None:
    """What the evidence says by now; ``over`` is when the last step had its time, if it had."""
    if s.evidence is None or s.settings.analysis is None:
        return None
    return verdict.judge(s.evidence, s.settings.analysis, (s.now - over).total_seconds() if over else 0.0)


def _published(s: Situation, judged: verdict.Verdict | None, target: int) -> dict[str, object]:
    """What status says of the evidence, for the share ``target`` in 0.01 %."""
    return published.status(s.evidence, s.settings.analysis, judged, target / FULL_WEIGHT)


def _refusal(s: Situation, reached: bool, since: str, judged: verdict.Verdict | None) -> str:
    """Why the candidate goes, in a clause; empty where it does not."""
    if s.abort:
        return "it was aborted by hand"
    if judged is not None and judged.decision is verdict.Decision.ROLL_BACK and not s.promote:
        return judged.sentence
    if s.candidate.refused and s.begun:
        # One that never began is tried as another variant, where there is one.
        return f"its engine refuses it: {s.candidate.message}"
    wanted = s.within.needed(s.before.target)
    waited = s.before.state == "Waiting" or not s.candidate.existing
    if reached or waited or s.candidate.ready >= wanted:
        return ""
    if (s.now - parse_time(since)).total_seconds() < duration_s(s.settings.deadline):
        return ""
    said = f": {s.candidate.message}" if s.candidate.message else ""
    return f"{s.candidate.ready} of {wanted} wanted replicas are ready after {s.settings.deadline}{said}"


def _rolled_back(s: Situation, why: str, judged: verdict.Verdict | None) -> Decision:
    before = s.before
    where = f"step {before.step + 1} of {before.steps}" if before.step < before.steps else "the end"
    share = percent(before.observed if s.candidate.weight is None else s.candidate.weight)
    message = f"revision {before.revision} was rolled back at {where}, with {share} of the traffic: {why}"
    ended = {"state": "RolledBack", "weight": 0, "reached": False, "since": timestamp(s.now), "message": message}
    told = _published(s, judged, before.target)
    status = before.model_copy(update=ended | told | {"next": "", "next_at": ""})
    return Decision(Outcome.ROLL_BACK, status, s.within.replicas, 0, None, message, "RolledBack")


def _promoted(s: Situation, judged: verdict.Verdict | None) -> Decision:
    before = s.before
    message = f"revision {before.revision} stood all steps ({before.steps}) and is promoted: all traffic moves to it"
    if judged is not None:
        message += f"; {judged.sentence}"
    if s.promote:
        message = f"revision {before.revision} is promoted by hand: all traffic moves to it"
    ended = {"state": "Promoted", "step": before.steps, "target": FULL_WEIGHT, "weight": FULL_WEIGHT}
    told = {"reached": True, "since": timestamp(s.now), "message": message, "next": "", "next_at": ""}
    update = ended | told | _published(s, judged, before.target) | {"observed": FULL_WEIGHT}
    status = before.model_copy(update=update)
    return Decision(Outcome.PROMOTE, status, s.stable.existing, s.within.replicas, None, message, "Promoted")


def _told(
    s: Situation, now: RolloutStatus, hold: str, undecided: verdict.Verdict | None
) -> tuple[str, str, datetime.datetime | None]:
    """Why the rollout is where it is, what comes next, and when."""
    planned = steps(s.settings)
    where = f"step {now.step + 1} of {len(planned)}" if now.step < len(planned) else "all steps are over"
    told = f"revision {now.revision} has {percent(now.observed)} of the traffic, {where}"
    # Where a step may not begin yet, it is what comes next.
    coming = now.step if hold and not now.reached else now.step + 1
    if coming < len(planned):
        following = f"step {coming + 1} of {len(planned)}, {percent(units(planned[coming]))} of the traffic"
    else:
        following = "all traffic" if s.evidence is None else "all traffic, if the evidence allows it"
    wanted, message = s.within.needed(now.target), s.candidate.message
    if s.candidate.ready and not s.stable.ready:
        why = f"the stable revision {now.stable} has no ready replica, so all traffic is to go here"
    elif s.candidate.ready < wanted:
        why = f"{s.candidate.ready} of {wanted} wanted replicas are ready" + (f": {message}" if message else "")
    elif hold:
        why = f"it waits: {hold}"
    elif undecided is not None and undecided.decision is verdict.Decision.PAUSE:
        why = f"{undecided.sentence}; promote or abort it"
    elif undecided is not None and s.settings.analysis is not None:
        at = _over(planned[now.step], now.since) + datetime.timedelta(seconds=duration_s(s.settings.analysis.deadline))
        following = (
            f"all traffic once the evidence allows it, else {_INCONCLUSIVE[s.settings.analysis.on_inconclusive]}"
        )
        return f"{told}; its time is over, and the evidence is awaited", following, at
    elif not now.reached:
        why = f"the router does not report its {percent(now.target)} yet"
    else:
        return told, following, _over(planned[now.step], now.since) if now.step < len(planned) else None
    return f"{told}; {why}", following, None
