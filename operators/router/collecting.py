"""What clients report of their answers, added up by arm: the agent's side of ``outcomes``.

A unit counts once: each of the last ``REMEMBERED`` ids of an Endpoint, at this router and since it began, so that who
is not sure whether a report arrived may send it again. Only sums are kept, so nobody's outcomes can be looked up here.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import pydantic
from aiohttp import web
from pydantic import Field

from operators.api.base import Strict
from operators.api.outcomes import Tally, Told
from operators.api.plan import FULL_WEIGHT, Split
from operators.router import control, outcomes
from operators.router.table import Table
from serving import contract

REMEMBERED = 100_000
_BODY_BYTES = 4096
_ID = re.compile(r"([a-z0-9-]{1,63})\.([1-9][0-9]{0,4})\.([0-9a-f]{1,16})\.([0-9a-f-]{1,36})")
_DRAWN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HASHED = re.compile(r"0|-?[1-9][0-9]{0,18}")
"""What HAProxy's ``uuid()`` and ``xxh64`` give."""
_WHAT = 'a report is {"id": the penstock-request-id of the answer, "value": NUMBER}, and may hold "metric", "covariate"'
_Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False, strict=True)]


class Report(Strict):
    """What came of one answer."""

    value: _Number
    id: str = ""
    metric: str = ""
    """Empty: the one that decides."""
    covariate: _Number = 0.0
    """What was known of the unit before; it takes out of the outcome what that explains."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the client is told."""

    status: HTTPStatus
    body: Mapping[str, str | bool]


class _Counted:
    """One experiment's sums, and which units are in them."""

    def __init__(self, experiment: str) -> None:
        self.experiment = experiment
        self.arms: dict[str, Tally] = {}
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


class Collector:
    """Adds up what is reported of the ``table`` of now; ``source`` is this process."""

    def __init__(self, table: Callable[[], Table], source: str) -> None:
        self._table = table
        self._source = source
        self._counted: dict[str, _Counted] = {}

    def told(self, key: str) -> dict[str, Told]:
        """What was counted of an Endpoint's experiment; empty where it has none."""
        counted = self._of(key)
        return {} if counted is None else {self._source: Told(counted.experiment, dict(counted.arms))}

    def take(self, key: str, assigned: str, body: bytes) -> Answer:
        """One report; ``assigned`` is the id of a client that keeps its arm, or empty."""
        counted, split = self._of(key), self._table().endpoints.get(key)
        if counted is None or split is None or split.outcomes is None:
            return _refused(HTTPStatus.NOT_FOUND, self._why_not(key))
        try:
            report = Report.model_validate_json(body)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            return _refused(HTTPStatus.BAD_REQUEST, f"{where}: {first['msg']}; {_WHAT}")
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
        if request.method != "POST":
            why = {"error": f"{request.method} {request.path}: a report is sent by POST; {_WHAT}"}
            return web.json_response(why, status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "POST"})
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            answer = _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the report is over {_BODY_BYTES} bytes; {_WHAT}")
        else:
            said = request.headers
            assigned = said.get(contract.REQUEST_ID_HEADER, "")
            answer = self._collector.take(said.get(outcomes.OF_HEADER, ""), assigned, body)
        return web.json_response(dict(answer.body), status=answer.status)


def _is_unit(unit: str, split: Split) -> bool:
    """Whether answers of ``split`` may name ``unit``: a hash only where clients keep their arms."""
    return bool(_DRAWN.fullmatch(unit) or (split.assignment is not None and _HASHED.fullmatch(unit)))


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
