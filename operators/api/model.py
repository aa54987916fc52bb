"""``Model``: one artifact, the variants made of it, the gate they pass, how they are served and replaced."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from operators.api.base import APIObject, Digest, Duration, Name, Rule, Strict
from operators.api.contract import Contract
from operators.api.engine import Batching, Limits
from operators.api.resources import Resources
from operators.api.status import ModelStatus

SCHEMES = ("file", "pvc", "s3", "gs", "abfs", "https", "hf", "oci", "mlflow", "dvc")
_URI = re.compile(rf"^({'|'.join(SCHEMES)})://.+$")
_URI_CEL = rf"self.uri.matches('^({'|'.join(SCHEMES)})://.+$')"
_URI_MESSAGE = (
    f"uri must be one of {', '.join(f'{scheme}://…' for scheme in SCHEMES)}; "
    "`penstock apply -f FILE` takes relative paths, too"
)

Uri = Annotated[str, Field(max_length=2048)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Location(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (Rule(_URI_CEL, _URI_MESSAGE, lambda self: bool(_URI.match(self.uri))),)
    uri: Uri
    """Where the file or folder is: `file://`, `pvc://CLAIM/PATH`, `s3://`, `gs://`, `abfs://`, `https://`, `hf://`,
    `oci://`, `mlflow://`, `dvc://`.
    """
    digest: Digest | None = None
    """`sha256:` and the hash of the file, or of the sorted `sha256sum` lines of a folder. Serving refuses anything
    else. Required in a cluster, pinned by `penstock apply` for local files.
    """


class Pass(Strict):
    """One step of a recipe; exactly one of its fields is set."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.quantize), has(self.prune), has(self.distill), has(self.lower)].filter(x, x).size() == 1",
            "a pass needs exactly one of quantize, prune, distill, lower",
            lambda self: sum(x is not None for x in (self.quantize, self.prune, self.distill, self.lower)) == 1,
        ),
    )
    quantize: Quantize | None = None
    """Lower precision of weights and activations."""
    prune: Prune | None = None
    """Remove whole channels."""
    distill: Distill | None = None
    """Train a smaller student on the original's answers."""
    lower: Lower | None = None
    """Compile for one engine."""


class Quantize(Strict):
    mode: Literal["static", "dynamic"] = "static"
    """Static measures activations on calibration data; dynamic at run time, for nets of matrix products only."""
    calibration: Location | None = None
    """Samples (`x` in an .npz) that static quantization measures activations on."""


class Prune(Strict):
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of channels to remove."""


class Distill(Strict):
    student: Location
    """The smaller model to train, as ONNX."""


class Lower(Strict):
    target: Literal["openvino", "litert", "tensorrt"]
    """The engine to compile for."""


class Variant(Strict):
    name: Name
    """Name of this form of the model, such as `fp32` or `int8`."""
    source: Location | None = None
    """An artifact that exists already; the Model's own source when left out."""
    passes: Annotated[tuple[Pass, ...], Field(max_length=16)] = ()
    """Steps that make this variant out of the source, in order."""


class WorstSlice(Strict):
    by: Annotated[str, Field(max_length=64)]
    """What the samples are sliced by: `label`, or an array of the dataset."""
    max_drop: Fraction
    """Greatest loss allowed in any one slice."""


class Evaluation(Strict):
    dataset: Location
    """Held-out samples: an .npz with `x` and `y`."""
    metric: Literal["accuracy"] = "accuracy"
    """What is measured on them."""
    max_drop: Fraction = 0.01
    """Greatest loss against the source that a variant may have: a bound on the one-sided confidence interval, not
    on the point estimate.
    """
    worst_slice: WorstSlice | None = None
    """A bound on every slice of the data, for losses that an average hides."""


class LatencyTarget(Strict):
    percentile: Annotated[float, Field(gt=0, lt=100)] = 99
    """Which percentile of the latency is meant."""
    target: Duration
    """What it must stay below."""


class Objective(Strict):
    minimize: Literal["cost", "latency"] = "cost"
    """What decides between variants that pass the gate."""
    latency: LatencyTarget | None = None
    """A variant that misses this is not chosen."""


class Scaling(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "scaling.minReplicas must not be above scaling.maxReplicas",
            lambda self: self.min_replicas <= self.max_replicas,
        ),
    )
    min_replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    """Fewest replicas; 0 lets an idle model stop."""
    max_replicas: Annotated[int, Field(ge=1, le=10000)] = 1
    """Most replicas."""
    idle_after: Duration = "10m"
    """How long without a request until a model with minReplicas 0 stops."""


class RolloutStep(Strict):
    weight: Annotated[int, Field(ge=1, le=100)]
    """Share of the traffic, in percent, that the new revision gets in this step."""
    for_: Annotated[Duration, Field(alias="for")] = "0s"
    """Shortest time to stay in this step."""


class MaxLatencyIncrease(Strict):
    percentile: Annotated[float, Field(gt=0, lt=100)] = 99
    """Which percentile of the latency is compared."""
    ratio: Annotated[float, Field(gt=1)]
    """Greatest allowed ratio of the new revision's latency to the old one's."""


class Analysis(Strict):
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Greatest probability of rolling back a revision that is no worse than the stable one."""
    max_error_rate_increase: Fraction = 0.01
    """Greatest allowed increase of the share of failed requests."""
    max_latency_increase: MaxLatencyIncrease | None = None
    """Greatest allowed increase of the latency."""


class Rollout(Strict):
    """Nothing moves faster than this."""

    steps: Annotated[tuple[RolloutStep, ...], Field(max_length=32)] = ()
    """Steps by which traffic moves to a new revision; none: all at once, when the new revision is ready."""
    analysis: Analysis | None = None
    """The test a new revision must stand while traffic moves; failing it moves all traffic back."""


class ModelSpec(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.scaling) || !has(self.replicas) || self.replicas <= self.scaling.maxReplicas",
            "replicas must not be above scaling.maxReplicas",
            lambda self: self.scaling is None or self.replicas <= self.scaling.max_replicas,
        ),
    )
    source: Location
    """The artifact everything is made of."""
    contract: Contract | None = None
    """How bytes become tensors and tensors become answers; it travels with the artifact."""
    variants: Annotated[
        tuple[Variant, ...],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = (Variant(name="default"),)
    """Forms of the model that may serve; the first one that can be served is chosen until they are measured."""
    evaluation: Evaluation | None = None
    """The gate: what a variant must prove before it may serve."""
    objective: Objective | None = None
    """What decides between variants that pass."""
    runtime: Name = "onnxruntime"
    """Engine: `onnxruntime` (built in) or the name of a ServingRuntime."""
    replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    """Replicas to run, as set by hand or through the scale subresource."""
    resources: Resources = Resources()
    """What each replica needs."""
    batching: Batching | None = None
    """How requests are computed together, by the built-in engine."""
    limits: Limits | None = None
    """What a request may take of the built-in engine."""
    scaling: Scaling | None = None
    """Bounds within which replicas are scaled."""
    rollout: Rollout | None = None
    """How traffic moves from the serving revision to the next. Left out: all at once, as soon as the new revision
    is ready; the old one keeps serving until then, and for as long as the new one fails.
    """
    history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many earlier revisions are remembered in status with their artifacts kept, ready to go back to."""


class Model(APIObject):
    """A versioned model, its faster variants, the proof they must give, and how the best one is served."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be at most 40 lower-case letters, digits and '-', beginning with a letter: "
            "the names of its revisions' children are made from it",
            lambda self: bool(re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.metadata.name)),
        ),
    )
    plural: ClassVar[str] = "models"
    short_names: ClassVar[tuple[str, ...]] = ("mdl",)
    kind: Literal["Model"] = "Model"
    spec: ModelSpec
    status: ModelStatus = ModelStatus()

    def not_acted_on(self) -> tuple[str, ...]:
        """Fields of the spec that are stored but not acted on yet, as paths."""
        spec = self.spec
        fields: dict[str, Any] = {
            "spec.evaluation": spec.evaluation,
            "spec.objective": spec.objective,
            "spec.scaling": spec.scaling,
            "spec.rollout": spec.rollout,
            "spec.resources.accelerator": spec.resources.accelerator,
        }
        passes = [f"spec.variants[{v.name}].passes" for v in spec.variants if v.passes]
        return tuple([path for path, value in fields.items() if value is not None] + passes)
