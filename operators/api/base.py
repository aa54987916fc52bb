"""What all kinds share: strict frozen parsing, metadata, conditions, and rules that hold here and in the API server.

A ``Rule`` is written twice, in CEL for the API server and in Python for local mode; one test suite runs both
over the same objects, so that they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "penstock.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One validation: ``cel`` for the API server, ``holds`` for local mode, one message for both."""

    cel: str
    message: str
    holds: Callable[[Any], bool]
    given: Callable[[Any], str] | None = None
    """What stands there, for the end of the message; here alone, since joining a list is more than CEL's budget."""


class Strict(pydantic.BaseModel):
    """A part of a spec: unknown fields are errors, values never change after parsing."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in type(self).rules:
            if not rule.holds(self):
                raise ValueError(f"{rule.message}: {rule.given(self)}" if rule.given else rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.rules:
            rules = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules]
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = rules
        return schema

    def to_dict(self) -> dict[str, Any]:
        """JSON form with the API's names; fields that were not set are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Seen(Strict):
    """A part that others write too: fields we do not know are passed over."""

    model_config = ConfigDict(extra="ignore")


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
_DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"


def _with_unit(value: Any) -> Any:
    """``value``, unless it is a duration without a unit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and re.fullmatch(r"[0-9.]+", value)):
        raise ValueError(f"{value} has no unit; write ms, s, m or h behind it, such as {value}s")
    if isinstance(value, str) and not re.search(_DURATION, value):
        raise ValueError(f"{value!r} is no duration; write numbers with ms, s, m or h, such as 90s or 1h30m")
    return value


Duration = Annotated[str, StringConstraints(pattern=_DURATION, max_length=32), pydantic.BeforeValidator(_with_unit)]
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(duration: str) -> float:
    """Seconds of a ``Duration`` such as ``1h30m``, ``2.5s`` or ``500ms``."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))


class ObjectMeta(Seen):
    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Condition(Seen):
    """One aspect of an object's state, as Kubernetes defines conditions."""

    type: Annotated[str, Field(max_length=316)]
    """Ready, VariantsReady, RolloutComplete or Accepted."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024)]
    """One word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """One sentence for people: the object, the value, the next step."""
    observed_generation: int = 0
    """The generation of the spec that this condition speaks of."""
    last_transition_time: str
    """When the status last changed, RFC 3339."""


class APIObject(Strict):
    """One object of the API with its metadata; ``status`` is written by the operator alone."""

    model_config = ConfigDict(extra="ignore")
    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]] = ()
    namespaced: ClassVar[bool] = True
    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: str
    metadata: ObjectMeta
