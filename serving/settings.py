"""What can be said about one model: how long it may take, how much may wait for it.

Said in three places, the later wins key by key: the defaults here, ``penstock.json`` in the model's folder, and
what the server's owner gives for all its models (``--settings``, ``PENSTOCK_SETTINGS``)::

    {"isolation": "process", "limits": {"maxPending": 64, "timeout": "5s", "memory": "2Gi"}}

Durations and quantities are written as in the Model resource: ``500ms``, ``2s``, ``1m30s``; ``512Mi``, ``2Gi``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import orjson

from serving.errors import ArtifactRefused, InvalidInput

FILE = "penstock.json"

Document = Mapping[str, Any]
_DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_QUANTITY = r"^[1-9][0-9]*(k|Ki|M|Mi|G|Gi|T|Ti)?$"
_WRITTEN = {_DURATION: "a duration such as 500ms, 30s or 1m30s", _QUANTITY: "a quantity such as 512Mi or 2Gi"}
Duration = Annotated[str, msgspec.Meta(pattern=_DURATION, max_length=32)]
Quantity = Annotated[str, msgspec.Meta(pattern=_QUANTITY, max_length=24)]
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Unknown keys are refused: a misspelt limit must not be no limit."""


class Limits(_Strict, frozen=True):
    """What a request may take of a model."""

    max_pending: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Requests that one version may have, waiting or in the engine. Left out: 128, and for a quick model as many more
    as wait no longer than 0.25 s.
    """
    max_pending_bytes: Annotated[int, msgspec.Meta(ge=1)] = 256 * 2**20
    """Bytes of their tensors. One request is taken whatever its size."""
    timeout: Duration = "30s"
    """Longest time from a request's last byte to its answer, and for the trial at start."""
    memory: Quantity | None = None
    """What the engine's process may allocate; only with ``isolation: process``."""

    @property
    def memory_bytes(self) -> int | None:
        """``memory`` in bytes."""
        return None if self.memory is None else size_bytes(self.memory)

    execution: Duration | None = None
    """Longest time of one call of the engine; it is interrupted then. Left out: as ``timeout``."""

    @property
    def timeout_s(self) -> float:
        """``timeout`` in seconds."""
        return seconds(self.timeout)

    @property
    def execution_s(self) -> float:
        """``execution`` in seconds."""
        return seconds(self.execution or self.timeout)


class Batching(_Strict, frozen=True):
    """Whether requests are joined for one call of the engine."""

    max_size: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    """Rows of one call; 1 switches it off. Left out: 32 where that is sure to change no answer, and worth it."""
    max_delay: Duration = "0ms"
    """How long a request that finds the engine idle waits for others."""

    @property
    def max_delay_s(self) -> float:
        """``max_delay`` in seconds."""
        return seconds(self.max_delay)


class WarmUp(_Strict, frozen=True):
    """One or more requests that the model answers before it is ready; see ``serving.models.warming``."""

    file: str | None = None
    """A V2 request in JSON, beside the model's file."""
    shapes: dict[str, tuple[Annotated[int, msgspec.Meta(ge=0)], ...]] | None = None
    """Shapes of inputs by name; their values are zero."""
    batch_sizes: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    """Numbers of rows; their values are zero."""
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """How often each is run."""

    def __post_init__(self) -> None:
        given = [self.file is not None, self.shapes is not None, bool(self.batch_sizes)]
        if sum(given) != 1:
            raise ValueError("a warm-up needs one of file, shapes and batchSizes")

    def told(self) -> str:
        """What it is, for a message."""
        if self.file is not None:
            return self.file
        return f"batchSizes {list(self.batch_sizes)}" if self.batch_sizes else f"shapes {self.shapes}"


Provider = str | dict[str, dict[str, str | int | float | bool]]
"""An execution provider of ONNX Runtime by its name, or ``{name: options}``."""


class OnnxRuntime(_Strict, frozen=True):
    """What only ONNX Runtime understands; the names are its own."""

    providers: Annotated[tuple[Provider, ...], msgspec.Meta(min_length=1)] = ("CPUExecutionProvider",)
    """Who computes, the first that can. Without the CPU among them, a model that needs it is refused."""
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"

    def __post_init__(self) -> None:
        if any(isinstance(provider, dict) and len(provider) != 1 for provider in self.providers):
            raise ValueError("each of `onnxruntime.providers` is a name, or an object with one name")


class Settings(_Strict, frozen=True):
    """Everything said about one model."""

    limits: Limits = Limits()
    batching: Batching = Batching()
    isolation: Literal["none", "process"] = "none"
    """Whether the engine runs in the server's process or in one of its own, whose end ends nothing else."""
    cache: bool = False
    """Whether it always answers equal requests alike, so that answers may be kept (``serving.scheduling.answers``)."""
    warm_up: tuple[WarmUp, ...] = ()
    """Run after the trial inference, in this order."""
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Threads of one engine; without it, as many as there are CPUs for the process."""
    onnxruntime: OnnxRuntime = OnnxRuntime()
    labels: dict[str, tuple[str, ...]] = {}
    """Names of the classes of an output, by the output's name; Triton's classification extension shows them."""

    @property
    def computes_here(self) -> bool:
        """Whether the server's own threads compute, so that the process's CPU time is what a call costs."""
        return self.isolation == "none" and self.onnxruntime.providers == ("CPUExecutionProvider",)


DEFAULT = Settings()


def seconds(duration: str) -> float:
    """A duration in seconds."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))


def size_bytes(quantity: str) -> int:
    """A quantity in bytes; InvalidInput when it is none."""
    if not re.fullmatch(_QUANTITY, quantity):
        raise InvalidInput(f"'{quantity}' is no size; expected {_WRITTEN[_QUANTITY]}")
    number = quantity.rstrip("kKMGTi")
    unit = quantity[len(number) :]
    base = 1024 if unit.endswith("i") else 1000
    return int(number) * int(base ** (" KMGT".index(unit[0].upper()) if unit else 0))


def parse(text: str | bytes, source: str) -> Document:
    """One document, held against what may be said; InvalidInput names ``source``, the key and what is expected."""
    try:
        document = orjson.loads(text)
        msgspec.convert(document, Settings)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{source} is no JSON: {error}") from error
    except msgspec.ValidationError as error:
        from serving import settings_refused

        why = settings_refused.said(error, document, Settings, _WRITTEN)
        raise InvalidInput(f"{source} cannot be taken: {why}") from error
    found: Document = document
    return found


def of(model_file: Path, owner: Document, below: Document | None = None) -> Settings:
    """The settings of the model whose artifact is ``model_file``; ArtifactRefused when its own file is wrong.

    ``below`` is what the server itself takes for granted.
    """
    own: Document = {}
    file = model_file.parent / FILE
    try:
        own = parse(file.read_bytes(), str(file))
    except FileNotFoundError:
        pass  # a model need not say anything
    except InvalidInput as error:
        raise ArtifactRefused(str(error)) from error
    except OSError as error:
        raise ArtifactRefused(f"{file} cannot be read ({error.strerror}); check its permissions") from error
    said = msgspec.convert(merged(merged(below or {}, own), owner), Settings)
    if said.limits.memory is not None and said.isolation != "process":
        raise ArtifactRefused(
            f"limits.memory of {model_file} cannot be kept in the server's own process; say isolation: process too"
        )
    return said


def merged(below: Document, above: Document) -> Document:
    """Both documents; where they say different things about one key, what ``above`` says (RFC 7386 without null)."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result
