"""What clients report of their answers, added up by arm or revision: the agent's side of ``outcomes``.

A unit counts once: each of the last ``REMEMBERED`` ids of an Endpoint or Model, at this router and since it began, so
that who is not sure whether a report arrived may send it again. Only sums are kept, so nobody's outcomes can be looked
up here.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import pydantic
from aiohttp import web
from pydantic import Field, StrictBool

from operators.api.base import Strict
from operators.api.outcomes import Tally, Told
from operators.api.plan import FULL_WEIGHT, Counts, Split
from operators.router import control, outcomes
from operators.router.table import Table
from serving import contract

REMEMBERED = 100_000
_BODY_BYTES = 4096
_ID = re.compile(r"([a-z0-9-]{1,63})\.([1-9][0-9]{0,4})\.([0-9a-f]{1,16})\.([0-9a-f-]{1,36})")
_DRAWN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HASHED = re.compile(r"0|-?[1-9][0-9]{0,18}")
"""What HAProxy's ``uuid()`` and ``xxh64`` give."""
_FEEDBACK_ID = re.compile(rf"([a-z0-9-]{{1,63}})\.({_DRAWN.pattern})")
BATCH = 10
"""Answers of which users told are told on so many at a time at least, with some of each revision that has traffic: the
test compares revisions within what comes between two looks, and learns nothing from a look that has one of them alone.
"""
_WHAT = 'a report is {"id": the penstock-request-id of the answer, "value": NUMBER}, and may hold "metric", "covariate"'
_WHAT_FEEDBACK = 'feedback is {"id": the penstock-request-id of the answer, "correct": true or false}'
_Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False, strict=True)]


class Report(Strict):
    """What came of one answer."""

    value: _Number
    id: str = ""
    metric: str = ""
    """Empty: the one that decides."""
    covariate: _Number = 0.0
    """What was known of the unit before; it takes out of the outcome what that explains."""


class Feedback(Strict):
    """Whether one answer was right."""

    id: str
    correct: StrictBool


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the client is told."""

    status: HTTPStatus
    body: Mapping[str, str | bool]


class _Remembered:
    """The units that were counted last."""

    def __init__(self) -> None:
        self._young: set[str] = set()
        self._old: set[str] = set()

    def is_new(self, unit: str) -> bool:
        """Whether ``unit`` was not counted before; from now on it was."""
        if unit in self._young or unit in self._old:
            return False
        if len(self._young) >= REMEMBERED:
            self._young, self._old = set(), self._young
        self._young.add(unit)
        return True


class _Counted(_Remembered):
    """One experiment's sums, and which units are in them."""

    def __init__(self, experiment: str) -> None:
        super().__init__()
        self.experiment = experiment
        self.arms: dict[str, Tally] = {}


class _Judged(_Remembered):
    """How often users said that one Model's answers were right or wrong, by workload."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Counts] = {}
        self._waiting: dict[str, tuple[int, int]] = {}

    def add(self, workload: str, wrong: bool, serving: Collection[str]) -> None:
        """One more, while the workloads ``serving`` have traffic."""
        waiting = self._waiting
        judged, before = waiting.get(workload, (0, 0))
        waiting[workload] = judged + 1, before + wrong
        if sum(judged for judged, _ in waiting.values()) >= BATCH and waiting.keys() >= set(serving):
            for of, (judged, bad) in waiting.items():
                known = self.told.get(of, Counts())
                self.told[of] = Counts(judged=known.judged + judged, wrong=known.wrong + bad)
            waiting.clear()


class Collector:
    """Adds up what is reported of the ``table`` of now; ``source`` is this process."""

    def __init__(self, table: Callable[[], Table], source: str) -> None:
        self._table = table
        self.source = source
        self._counted: dict[str, _Counted] = {}
        self._judged: dict[str, _Judged] = {}

    def told(self, key: str) -> dict[str, Told]:
        """What was counted of an Endpoint's experiment; empty where it has none."""
        counted = self._of(key)
        return {} if counted is None else {self.source: Told(counted.experiment, dict(counted.arms))}

    def judged(self, key: str) -> dict[str, Counts]:
        """What users told of a Model's answers, by workload, of those of now even if they told nothing; empty where
        they are not asked.
        """
        places = self._table().models.get(key)
        if places is None or not places.feedback:
            self._judged.pop(key, None)
            return {}
        told = self._judged[key].told if key in self._judged else {}
        return {arm.workload: told.get(arm.workload, Counts()) for arm in places.arms}

    def judge(self, key: str, body: bytes) -> Answer:
        """Feedback on one answer of a Model, or of a Model of an Endpoint."""
        table = self._table()
        split = table.endpoints.get(key)
        names = {name for name, _ in split.shares} | {*split.names.values()} if split else set()
        asked = {f"{split.namespace}/{name}" for name in names} if split else {key}
        models = {one: table.models[one] for one in asked if one in table.models and table.models[one].feedback}
        if not models:
            return _refused(HTTPStatus.NOT_FOUND, self._why_no_feedback(key))
        try:
            said = Feedback.model_validate_json(body)
        except pydantic.ValidationError as error:
            return _refused(HTTPStatus.BAD_REQUEST, f"{_problem(error)}; {_WHAT_FEEDBACK}")
        parts = _FEEDBACK_ID.fullmatch(said.id)
        if parts is None:
            what = f"id: {said.id[:120]!r} is no {contract.REQUEST_ID_HEADER} of {key}"
            return _refused(HTTPStatus.BAD_REQUEST, f"{what}; {_WHAT_FEEDBACK}")
        workload, unit = parts.groups()
        found = next((one for one, at in models.items() if any(arm.workload == workload for arm in at.arms)), None)
        if found is None:
            known = ", ".join(arm.workload for places in models.values() for arm in places.arms)
            why = f"id: no revision of {key} that answers now is {workload}; these are: {known or 'none'}"
            return _refused(HTTPStatus.NOT_FOUND, f"{why}; what has gone is not counted any more")
        judged = self._judged.setdefault(found, _Judged())
        if not judged.is_new(unit):
            return _passed_over("it was counted before: each answer counts once")
        judged.add(workload, not said.correct, [arm.workload for arm in models[found].arms if arm.weight])
        return Answer(HTTPStatus.OK, {"counted": True})

    def take(self, key: str, assigned: str, body: bytes) -> Answer:
        """One report; ``assigned`` is the id of a client that keeps its arm, or empty."""
        counted, split = self._of(key), self._table().endpoints.get(key)
        if counted is None or split is None or split.outcomes is None:
            return _refused(HTTPStatus.NOT_FOUND, self._why_not(key))
        try:
            report = Report.model_validate_json(body)
        except pydantic.ValidationError as error:
            return _refused(HTTPStatus.BAD_REQUEST, f"{_problem(error)}; {_WHAT}")
        given = report.id or assigned
        if not given:
            return _refused(HTTPStatus.BAD_REQUEST, f"the report names no answer; {_WHAT}")
        parts = _ID.fullmatch(given)
        if parts is None or int(parts[2]) > FULL_WEIGHT or not _is_unit(parts[4], split):
            return _refused(
                HTTPStatus.BAD_REQUEST,
                f"id: {given[:100]!r} is no {contract.REQUEST_ID_HEADER} of endpoint {key}; {_WHAT}",
            )
        arm, share, experiment, unit = parts.groups()
        if experiment != counted.experiment:
            return _passed_over(f"the answer belongs to experiment {experiment}, and {counted.experiment} goes on")
        if arm not in split.outcomes.arms:
            known = ", ".join(split.outcomes.arms)
            return _refused(HTTPStatus.NOT_FOUND, f"id: endpoint {key} has no arm {arm} with a weight, but {known}")
        if report.metric not in ("", split.outcomes.metric):
            return _passed_over(f"metric {report.metric!r} does not decide, {split.outcomes.metric!r} does")
        if not counted.is_new(unit):
            return _passed_over("it was counted before: each answer counts once, and each client that keeps its arm")
        more = Tally.of(report.value, report.covariate, int(share) / FULL_WEIGHT)
        counted.arms[arm] = counted.arms.get(arm, Tally()) + more
        return Answer(HTTPStatus.OK, {"counted": True})

    def _of(self, key: str) -> _Counted | None:
        split = self._table().endpoints.get(key)
        if split is None or split.outcomes is None:
            self._counted.pop(key, None)
            return None
        counted = self._counted.get(key)
        if counted is None or counted.experiment != split.outcomes.experiment:
            counted = self._counted[key] = _Counted(split.outcomes.experiment)
        return counted

    def _why_not(self, key: str) -> str:
        """Why no outcomes of ``key`` are taken, and what to do."""
        table = self._table()
        if key in table.endpoints:
            why = "its spec has no experiment and no policy: bandit, or the time of its experiment is over"
            return f"endpoint {key} counts no outcomes: {why}; set spec.experiment"
        if key in table.models:
            return f"model {key} counts no outcomes: name an Endpoint that has it as an arm and a spec.experiment"
        return f"{key} is no Model and no Endpoint; `penstock get endpoints` lists what may be named"

    def _why_no_feedback(self, key: str) -> str:
        """Why no feedback on ``key`` is taken, and what to do."""
        table = self._table()
        if key in table.endpoints:
            return f"endpoint {key} takes no feedback: set spec.rollout.analysis.feedback of one of its Models"
        if key in table.models:
            return f"model {key} takes no feedback: set spec.rollout.analysis.feedback"
        return f"{key} is no Model and no Endpoint; `penstock get models` lists what may be named"


class Server:
    """Takes reports from HAProxy, at a socket in ``folder`` that nobody else may open."""

    def __init__(self, folder: Path, collector: Collector) -> None:
        self._folder = folder
        self._collector = collector
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; a socket that an earlier agent left is replaced."""
        application = web.Application(client_max_size=_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, _listening(self._folder)).start()

    async def stop(self) -> None:
        """Finish what was begun, and listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        is_feedback = request.path.endswith(f"/{outcomes.FEEDBACK}")
        what = _WHAT_FEEDBACK if is_feedback else _WHAT
        if request.method != "POST":
            why = {"error": f"{request.method} {request.path}: a report is sent by POST; {what}"}
            return web.json_response(why, status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "POST"})
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            answer = _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the report is over {_BODY_BYTES} bytes; {what}")
        else:
            key, assigned = (request.headers.get(name, "") for name in (outcomes.OF_HEADER, contract.REQUEST_ID_HEADER))
            answer = self._collector.judge(key, body) if is_feedback else self._collector.take(key, assigned, body)
        return web.json_response(dict(answer.body), status=answer.status)


def _is_unit(unit: str, split: Split) -> bool:
    """Whether answers of ``split`` may name ``unit``: a hash only where clients keep their arms."""
    return bool(_DRAWN.fullmatch(unit) or (split.assignment is not None and _HASHED.fullmatch(unit)))


def _problem(error: pydantic.ValidationError) -> str:
    """What is wrong with a report, and where."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"


def _refused(status: HTTPStatus, why: str) -> Answer:
    return Answer(status, {"error": why})


def _passed_over(why: str) -> Answer:
    """Nothing is wrong, but it changes no sums: whoever sent it need not look at it."""
    return Answer(HTTPStatus.OK, {"counted": False, "why": why})


def _listening(folder: Path) -> socket.socket:
    (folder / outcomes.SOCKET).unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with control.address(folder, outcomes.SOCKET) as path:
            found.bind(path)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    finally:
        os.umask(before)
    return found
