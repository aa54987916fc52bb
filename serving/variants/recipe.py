"""What a build is asked for: one document, parsed once and strictly, and the hash that names every step of it.

The document is what ``penstock build`` and the operator make of a Model's spec, with the names of the API::

    {"source": {"uri": "file:///…/model.onnx", "digest": "sha256:…"},
     "variants": [{"name": "int8", "passes": [{"quantize": {"calibration": {"uri": "…", "digest": "sha256:…"}}}]}],
     "evaluation": {"dataset": {"uri": "…", "digest": "sha256:…"}, "maxDrop": 0.01}}
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec
import orjson

from serving.errors import InvalidInput
from serving.settings import Duration


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Unknown keys are refused: a misspelt bound must not be no bound."""


Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Location(_Strict, frozen=True, kw_only=True):
    """A file or folder somewhere, with the digest it must have."""

    uri: str
    digest: str | None = None


class Slim(_Strict, frozen=True, kw_only=True):
    """Clean up the graph; changes no answer."""


class Cast(_Strict, frozen=True, kw_only=True):
    """Weights and activations as 16-bit floats; inputs and outputs stay as they are."""

    to: Literal["fp16", "bf16"] = "fp16"


class Quantize(_Strict, frozen=True, kw_only=True):
    """Weights and activations as 8-bit integers; see ``passes.quantize``."""

    mode: Literal["static", "dynamic"] = "static"
    calibration: Location | None = None
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True
    exclude: Literal["auto", "sensitive", "none"] = "auto"
    min_sqnr_db: Annotated[float, msgspec.Meta(ge=0, le=100)] = 33.0
    """For ``sensitive``: so far above the noise the answers must be."""


class Training(_Strict, frozen=True, kw_only=True):
    """How a changed network learns again."""

    data: Location
    epochs: Positive = 40
    rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 3e-3


class Prune(_Strict, frozen=True, kw_only=True):
    """What matters least removed; see ``passes.prune`` and ``passes.prune_channels``."""

    ratio: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    structure: Literal["channels", "weights"] = "channels"
    training: Training | None = None


class Distill(_Strict, frozen=True, kw_only=True):
    """A smaller network trained on the original's answers; see ``passes.distill``."""

    student: Location | None = None
    width: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    training: Training

    def __post_init__(self) -> None:
        if (self.student is None) == (self.width is None):
            raise ValueError("distill needs exactly one of student, width")


PRECISIONS = {"openvino": ("fp32", "bf16"), "litert": ("fp32", "int8"), "tensorrt": ("fp32", "fp16")}
"""What can be asked of each engine beside what the graph says itself."""


class Lower(_Strict, frozen=True, kw_only=True):
    """For one engine; see ``passes.lower``."""

    target: Literal["openvino", "litert", "tensorrt"]
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    calibration: Location | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[self.target]:
            has = " and ".join(PRECISIONS[self.target])
            raise ValueError(f"lower to {self.target} has no precision {self.precision}, it has {has}")
        if self.calibration is not None and self.precision != "int8":
            raise ValueError("lower takes calibration with precision int8 only")


class Pass(_Strict, frozen=True, kw_only=True):
    """One step; exactly one of its fields is set."""

    slim: Slim | None = None
    cast: Cast | None = None
    quantize: Quantize | None = None
    prune: Prune | None = None
    distill: Distill | None = None
    lower: Lower | None = None

    def __post_init__(self) -> None:
        if len(self._said()) != 1:
            raise ValueError(f"a pass is exactly one of {', '.join(self.__struct_encode_fields__)}")

    def _said(self) -> list[str]:
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]

    @property
    def kind(self) -> str:
        """Name of the pass."""
        return self._said()[0]

    @property
    def step(self) -> Slim | Cast | Quantize | Prune | Distill | Lower:
        """What it is told."""
        found: Slim | Cast | Quantize | Prune | Distill | Lower = getattr(self, self.kind)
        return found

    @property
    def learns(self) -> bool:
        """Whether it trains, which takes longer than anything else."""
        return self.toolchain == "torch"

    @property
    def samples(self) -> Location | None:
        """What it calibrates with or learns from."""
        if isinstance(self.step, (Quantize, Lower)):
            return self.step.calibration
        if isinstance(self.step, (Prune, Distill)) and self.step.training is not None:
            return self.step.training.data
        return None

    @property
    def files(self) -> dict[str, Location]:
        """What else it reads, by the name that its ``make`` calls it."""
        if isinstance(self.step, Distill) and self.step.student is not None:
            return {"student": self.step.student}
        return {}

    @property
    def toolchain(self) -> str:
        """The environment it runs in; empty: Penstock's own."""
        if isinstance(self.step, Lower) and self.step.target == "litert":
            return "litert"
        learns = isinstance(self.step, Distill) or (isinstance(self.step, Prune) and self.step.structure == "channels")
        return "torch" if learns else ""


class Search(_Strict, frozen=True, kw_only=True):
    """Variants to be found; see ``search``."""

    budget: Duration = "10m"
    """No further one is begun after this time."""
    calibration: Location | None = None
    """For static quantization; the inputs of the evaluation, without their labels, when left out."""
    training: Training | None = None
    """Without it no net is changed that would have to learn again."""


class Variant(_Strict, frozen=True, kw_only=True):
    """One form of the model, or a search for some."""

    name: str
    source: Location | None = None
    """An artifact that exists already; the build's own source when left out."""
    passes: tuple[Pass, ...] = ()
    search: Search | None = None

    def __post_init__(self) -> None:
        if self.search is not None and (self.passes or self.source is not None):
            raise ValueError(f"variant {self.name} has a search, which finds passes; leave out passes and source")
        if any(one.lower is not None for one in self.passes[:-1]):
            raise ValueError(f"variant {self.name} changes what is lowered to an engine already; put lower last")

    @property
    def is_source(self) -> bool:
        """Whether it is the build's source as it is."""
        return not self.passes and self.source is None and self.search is None


class WorstSlice(_Strict, frozen=True, kw_only=True):
    """A bound on every slice of the data."""

    by: str
    max_drop: Share


class Evaluation(_Strict, frozen=True, kw_only=True):
    """What a variant must prove, and on what."""

    dataset: Location
    metric: str = "accuracy"
    max_drop: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    worst_slice: WorstSlice | None = None


class LatencyTarget(_Strict, frozen=True, kw_only=True):
    """What a call must stay below."""

    percentile: Annotated[float, msgspec.Meta(gt=0, lt=100)] = 99
    target: Duration


class Objective(_Strict, frozen=True, kw_only=True):
    """What makes one variant better than another."""

    minimize: Literal["cost", "latency", "size"] = "cost"
    latency: LatencyTarget | None = None


class Asked(_Strict, frozen=True, kw_only=True):
    """The whole build."""

    name: str = "model"
    """What the report calls it."""
    source: Location
    variants: tuple[Variant, ...]
    evaluation: Evaluation | None = None
    objective: Objective = Objective()
    contract: dict[str, Any] = {}
    max_batch: Positive = 32
    engine: Literal["", "openvino", "litert", "auto"] = ""
    """What everything is lowered to, and serves by: one engine, or the best; empty: as each variant's passes say."""


def parse(document: bytes | str) -> Asked:
    """The build that a document asks for; InvalidInput names the key and what is expected."""
    try:
        asked = msgspec.json.decode(document, type=Asked)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"the build cannot be taken: {error}") from error
    names = [variant.name for variant in asked.variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"the build has two variants called {twice[0]}; give each a name of its own")
    return asked


def digest(*parts: Any) -> str:
    """SHA-256 of ``parts`` as canonical JSON, in hexadecimal digits."""
    return hashlib.sha256(orjson.dumps(msgspec.to_builtins(parts), option=orjson.OPT_SORT_KEYS)).hexdigest()


def plain(value: Any) -> Any:
    """``value`` as it stands in JSON."""
    return msgspec.to_builtins(value)
