"""``Endpoint``: a stable URL over several Models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from operators.api.base import APIObject, Duration, Name, Rule, Strict
from operators.api.compare import Compare
from operators.api.status import EndpointStatus


class EndpointArm(Strict):
    name: Name
    """Name of the arm, as it appears in reports."""
    model: Name
    """The Model in the same namespace that answers for it."""
    weight: Annotated[int, Field(ge=0, le=100)]
    """Share of the requests, in percent; the weights of all arms add up to 100."""


class Assignment(Strict):
    """With both, their pair decides. A request that lacks any of them is assigned by itself."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.header) || has(self.cookie)",
            "assignment needs a header, a cookie or both",
            lambda self: bool(self.header or self.cookie),
        ),
    )
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=64)] | None = None
    """Requests with the same value of this header always reach the same arm."""
    cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)] | None = None
    """Requests with the same value of this cookie always reach the same arm."""


class Shadow(Strict):
    model: Name
    """The Model that gets copies; its answers reach nobody."""
    percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Share of the requests to copy. With `assignment` it is a share of the units: all requests of one are copied, or
    none.
    """
    compare: Compare | None = None
    """How answers are compared, by the contract of the shadow's Model."""


class Experiment(Strict):
    """Each answer names its unit in the header `penstock-request-id`; clients report what came of it, also if that is
    nothing, with POST to `/v2/models/NAME/reward`: `{"id": ..., "value": 1}`. More is better. The first arm is the one
    that the others are compared with.
    """

    metric: Annotated[str, Field(min_length=1, max_length=64)] = "reward"
    """The reported outcome that decides; reports of others are not counted."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Greatest probability that any interval ever misses the truth, however often it is looked at."""
    duration: Duration | None = None
    """After which nothing more is counted and the verdict stands; left out: it goes on."""


class EndpointSpec(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.arms.map(a, a.weight).sum() == 100",
            "the weights of arms must add up to 100",
            lambda self: sum(arm.weight for arm in self.arms) == 100,
        ),
        Rule(
            "(!has(self.experiment) && self.policy != 'bandit') || self.arms.filter(a, a.weight > 0).size() > 1",
            "an experiment or a bandit needs two arms with a weight above 0",
            lambda self: not self.settings or sum(arm.weight > 0 for arm in self.arms) > 1,
        ),
        Rule(
            "!has(self.shadow) || self.shadow.all(s, self.shadow.exists_one(o, o.model == s.model))",
            "a shadow is named twice; each of them gets its own copies",
            lambda self: len({shadow.model for shadow in self.shadow}) == len(self.shadow),
        ),
    )
    arms: Annotated[
        tuple[EndpointArm, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """Models behind this URL, each with its share."""
    assignment: Assignment | None = None
    """Sticky by a header or cookie; without it each request is assigned by itself."""
    policy: Literal["fixed", "bandit"] = "fixed"
    """Fixed keeps the weights; bandit moves them every minute, by at most a tenth, towards the arm whose reported
    outcomes are better, and takes out one that is shown to be worse than the first.
    """
    shadow: Annotated[tuple[Shadow, ...], Field(max_length=8)] = ()
    """Models that get copies of inference requests once these are answered; nobody sees what they answer."""
    experiment: Experiment | None = None
    """The comparison of arms that is reported; a bandit has one in any case."""

    @property
    def settings(self) -> Experiment | None:
        """What is to be compared, and how; None: nothing."""
        return self.experiment or (Experiment() if self.policy == "bandit" else None)


class Endpoint(APIObject):
    """A stable URL over several Models, with shares, sticky assignment, shadows and experiments."""

    plural: ClassVar[str] = "endpoints"
    short_names: ClassVar[tuple[str, ...]] = ("pep",)
    kind: Literal["Endpoint"] = "Endpoint"
    spec: EndpointSpec
    status: EndpointStatus = EndpointStatus()
