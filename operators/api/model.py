"""``Model``: one artifact, the variants made of it, the gate they pass, how they are served and replaced."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from operators.api.base import APIObject, Digest, Duration, Name, Rule, Strict
from operators.api.compare import Compare
from operators.api.contract import Contract
from operators.api.endpoint import Assignment
from operators.api.engine import Batching, Limits
from operators.api.resources import Resources
from operators.api.status import ModelStatus
from operators.api.traffic import Traffic
from serving.contract import ENGINE_SUFFIXES

SCHEMES = ("file", "pvc", "s3", "gs", "abfs", "https", "hf", "oci", "mlflow", "dvc")
_URI = re.compile(rf"^({'|'.join(SCHEMES)})://.+$")
_URI_CEL = rf"self.uri.matches('^({'|'.join(SCHEMES)})://.+$')"
_URI_MESSAGE = (
    f"uri must be one of {', '.join(f'{scheme}://…' for scheme in SCHEMES)}; "
    "`penstock apply -f FILE` takes relative paths, too"
)

_ENGINE_FILES = "|".join(suffix.replace(".", "[.]") for suffix in ENGINE_SUFFIXES.values())
_PRECISIONS = frozenset({("openvino", "bf16"), ("litert", "int8"), ("tensorrt", "fp16")})

Uri = Annotated[str, Field(max_length=2048)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_CLOCK = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"


def _in_quotes(value: Any) -> Any:
    """``value``, unless it is a time as YAML 1.1 reads one that stands there without quotes: 16:00 is 60 times 16."""
    if isinstance(value, int) and not isinstance(value, bool) and 60 <= value <= 24 * 60:
        hours, minutes = divmod(value, 60)
        raise ValueError(f'YAML reads a time without quotes as a number, {value}; quote it: "{hours:02}:{minutes:02}"')
    if not isinstance(value, str) or not re.search(_CLOCK, value):
        raise ValueError(f'{value!r} is no time of day; write hours and minutes in quotes, such as "09:00"')
    return value


ClockTime = Annotated[str, Field(pattern=_CLOCK, max_length=5), BeforeValidator(_in_quotes)]
IntOrPercent = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^[0-9]{1,9}%?$")],
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": r"^[0-9]{1,9}%?$", "minimum": 0}),
]


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
            "[has(self.slim), has(self.cast), has(self.quantize), has(self.prune), has(self.distill), has(self.lower)]"
            ".filter(x, x).size() == 1",
            "a pass needs exactly one of slim, cast, quantize, prune, distill, lower",
            lambda self: sum(getattr(self, name) is not None for name in type(self).model_fields) == 1,
        ),
    )
    slim: Slim | None = None
    """Clean up the graph; changes no answer."""
    cast: Cast | None = None
    """16-bit floats inside, the model's own types outside."""
    quantize: Quantize | None = None
    """Lower precision of weights and activations."""
    prune: Prune | None = None
    """Remove weights."""
    distill: Distill | None = None
    """Train a smaller student on the original's answers."""
    lower: Lower | None = None
    """Compile for one engine."""


class Slim(Strict):
    pass


class Cast(Strict):
    to: Literal["fp16", "bf16"] = "fp16"
    """Type of weights and activations."""


class Quantize(Strict):
    mode: Literal["static", "dynamic"] = "static"
    """Static measures activations on calibration data; dynamic at run time, for nets of matrix products only."""
    calibration: Location | None = None
    """Samples (as for an evaluation, labels not needed) that static quantization measures activations on."""
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    """How the range of an activation is found in what calibration saw of it."""
    per_channel: bool = True
    """A scale for each channel of a weight, not one for all."""
    exclude: Literal["auto", "sensitive", "none"] = "auto"
    """What stays in floats. Auto: what no convolution or matrix product depends on, such as the decoding of boxes, and
    the last of these. Sensitive: the layers that change the answers most, found by quantizing each alone.
    """
    min_sqnr_db: Annotated[float, Field(ge=0, le=100)] = 33.0
    """For exclude sensitive: how far, in decibels, the source's answers to the calibration samples must stay above the
    noise that quantization adds to them. As few layers are left in floats as this takes.
    """


class Prune(Strict):
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share to remove."""
    structure: Literal["channels", "weights"] = "channels"
    """Whole channels, which makes the model smaller; or single weights, which sets them to zero."""
    training: Training | None = None
    """How the rest learns again. Channels cannot go without it."""


class Training(Strict):
    data: Location
    """Samples to learn from: the source's answers to them, and their labels where there are any."""
    epochs: Annotated[int, Field(ge=1, le=100000)] = 40
    """How often each sample is seen."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.003
    """Greatest learning rate."""


class Distill(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.student) != has(self.width)",
            "distill needs exactly one of student, width",
            lambda self: (self.student is None) != (self.width is None),
        ),
    )
    student: Location | None = None
    """The smaller model to train, as ONNX: it begins from the weights it has."""
    width: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Or a student of the original's structure with this share of its channels, which begins from fresh weights."""
    training: Training
    """How it learns. Where the data have labels, another learns from them alone, and the better one is taken."""


class Lower(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.precision) || self.precision == 'fp32'"
            " || (self.target == 'openvino' && self.precision == 'bf16')"
            " || (self.target == 'litert' && self.precision == 'int8')"
            " || (self.target == 'tensorrt' && self.precision == 'fp16')",
            "lower.precision is fp32, or bf16 for openvino, int8 for litert, fp16 for tensorrt",
            lambda self: (self.target, self.precision) in _PRECISIONS or self.precision == "fp32",
        ),
        Rule(
            "!has(self.calibration) || (has(self.precision) && self.precision == 'int8')",
            "lower takes calibration with precision int8 only",
            lambda self: self.calibration is None or self.precision == "int8",
        ),
    )
    target: Literal["openvino", "litert", "tensorrt"]
    """The engine to compile for."""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """What it computes in, where the graph does not say it: bf16 for OpenVINO, int8 for LiteRT, fp16 for TensorRT."""
    calibration: Location | None = None
    """Samples that LiteRT's integers measure activations on; without them only weights become integers."""


class Search(Strict):
    budget: Duration = "10m"
    """No further variant is begun after this time."""
    calibration: Location | None = None
    """Samples for static quantization; the inputs of the evaluation, without their labels, when left out."""
    training: Training | None = None
    """Samples to learn from; without them no net is changed that would have to learn again."""


class Variant(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.search) || (!has(self.source) && !(has(self.passes) && self.passes.size() > 0))",
            "a variant with search finds its passes itself: leave out passes and source",
            lambda self: self.search is None or (self.source is None and not self.passes),
        ),
        Rule(
            "!has(self.passes) || self.passes.filter(one, has(one.lower)).size()"
            " <= (self.passes.size() > 0 && has(self.passes[self.passes.size() - 1].lower) ? 1 : 0)",
            "nothing can be done to what is lowered to an engine: put lower last",
            lambda self: all(one.lower is None for one in self.passes[:-1]),
        ),
    )
    name: Name
    """Name of this form of the model, such as `fp32` or `int8`."""
    source: Location | None = None
    """An artifact that exists already; the Model's own source when left out."""
    passes: Annotated[tuple[Pass, ...], Field(max_length=16)] = ()
    """Steps that make this variant out of the source, in order."""
    search: Search | None = None
    """Find passes that pay: several variants may come of it, each named after this one."""


class WorstSlice(Strict):
    by: Annotated[str, Field(max_length=64)]
    """What the samples are sliced by: `label`, or an array of the dataset."""
    max_drop: Fraction
    """Greatest loss allowed in any one slice."""


class Evaluation(Strict):
    dataset: Location
    """Held-out samples: an .npz, Parquet or Arrow file with `x` and what the metric compares with (`y`, or `boxes` and
    `keypoints`), a folder of Parquet and Arrow files, or a folder of images with a `labels.csv` (`file,label`).
    """
    metric: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = "accuracy"
    """What is measured on them: accuracy, top-K, exact-match, f1, auroc, log-loss, rmse, mae, ap-oks (poses),
    ap-iou (boxes), mean-iou (segmentation), or a metric that a distribution offers as an entry point of
    `penstock.metrics`.
    """
    max_drop: Annotated[float, Field(ge=0)] = 0.01
    """Greatest loss against the source that a variant may have: a bound on the one-sided confidence interval, not
    on the point estimate.
    """
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of that interval. A variant that is worse than allowed passes at most once in 1 / (1 - confidence) times."""
    worst_slice: WorstSlice | None = None
    """A bound on every slice of the data, for losses that an average hides."""


class LatencyTarget(Strict):
    percentile: Annotated[float, Field(gt=0, lt=100)] = 99
    """Which percentile of the latency is meant."""
    target: Duration
    """What it must stay below."""


class Objective(Strict):
    minimize: Literal["cost", "latency", "size"] = "cost"
    """What decides between variants that pass the gate: time of the processor for a sample at the best batch size, or
    for a sample alone, or the size of the artifact.
    """
    latency: LatencyTarget | None = None
    """A variant of which one call takes longer, at every batch size, is not chosen while another one meets this."""


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
    weight: Annotated[float, Field(gt=0, le=100)]
    """Share of the traffic, in percent to two decimals, that the new revision gets in this step; at least 0.01."""
    for_: Annotated[Duration, Field(alias="for")] = "0s"
    """How long the router must have reported this share before the next step."""


class TimeWindow(Strict):
    days: Annotated[tuple[Day, ...], Field(max_length=7)] = ()
    """Days on which it begins; none: every day."""
    from_: Annotated[ClockTime, Field(alias="from")] = "00:00"
    """When it begins, by the clock of `timezone`; in quotes, since YAML has its own idea of 10:00."""
    to: ClockTime = "24:00"
    """When it ends; where that is not later than `from`, on the next day."""
    timezone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]+$", max_length=64)] = "UTC"
    """Name in the time zone database, such as `Europe/Berlin`."""


class MaxLatencyIncrease(Strict):
    percentile: Annotated[float, Field(ge=1, le=99.9)] = 99
    """Percentile at which a revision must be shown not to be slower than allowed, before it is promoted."""
    ratio: Annotated[float, Field(ge=1.2, le=100)] = 1.3
    """Latency of the new revision over the stable one's that is not tolerated. Compared in steps of 12 %: what counts
    is the next lower step.
    """


class Agreement(Compare):
    """Another revision answers some requests as well, and its answers are compared with those that clients got: by what
    is found where the contract says detections, by the class on top where it has labels, else by the numbers.
    """

    percent: Annotated[float, Field(ge=0.01, le=100)] = 10
    """Share of the stable revision's requests that are mirrored, from when the new one is ready."""
    max_disagreement: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    """Share of different answers that is allowed. A revision with no more of them is rolled back for it with the
    probability alpha at most, one with more is promoted with the probability beta at most.
    """


class Feedback(Strict):
    """Users say of answers of both revisions whether they were right: `POST …/v2/models/NAME/feedback` with the
    `penstock-request-id` that each inference answer carries.
    """

    max_increase: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Increase of the share of wrong answers, among those that users told of, that is not tolerated. The smaller, the
    more answers must be told of for a promotion: 150 of the new revision with 0.02 where none is wrong.
    """


class Analysis(Strict):
    """A sequential test, looked at all the time. It promises two things. A revision that is no worse than the stable
    one is found worse with a probability of at most alpha, however long it takes. One that is worse by what is not
    tolerated is found good enough with a probability of at most beta. One in between may meet either fate. Where the
    evidence says neither until the deadline, onInconclusive decides.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Greatest probability that the evidence rolls back a revision that is no worse than the stable one."""
    beta: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Greatest probability that the evidence promotes a revision that is worse by maxErrorRateIncrease,
    maxLatencyIncrease or feedback.maxIncrease.
    """
    max_error_rate_increase: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Increase of the share of failed requests that is not tolerated: with 0.01, a revision that fails 1.1 % of them
    where the stable one fails 0.1 %. The smaller, the more requests a promotion takes: 300 of the new revision with
    0.01 where none fails, 3,000 with 0.001.
    """
    max_latency_increase: MaxLatencyIncrease | None = None
    """Increase of the latency that is not tolerated; left out, latency is not judged. A revision that may be slower by
    design is better left unjudged: one that is slower at all may be rolled back.
    """
    agreement: Agreement | None = None
    """Ask for equal answers, too, before any client gets one of the new revision; left out: answers are not judged."""
    feedback: Feedback | None = None
    """Count what users say of answers, too; left out, answers name no id and nothing is counted. Without any feedback
    nothing is shown, so the deadline should leave users the time for it.
    """
    deadline: Duration = "1h"
    """How long, after all steps have had their time, evidence is waited for. After that the rollout is inconclusive."""
    on_inconclusive: Literal["rollBack", "promote", "pause"] = "rollBack"
    """What becomes of a revision that could be shown neither to be good enough nor to be worse, mostly for want of
    requests.
    """


class Rollout(Strict):
    """Nothing moves faster than this."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.steps) || (self.steps.map(s, s.weight).isSorted()"
            " && self.steps.all(s, self.steps.exists_one(o, o.weight == s.weight)))",
            "the weights of steps must rise from one to the next",
            lambda self: all(one.weight < after.weight for one, after in itertools.pairwise(self.steps)),
            lambda self: ", ".join(f"{step.weight:g}" for step in self.steps),
        ),
    )
    steps: Annotated[tuple[RolloutStep, ...], Field(max_length=32)] = ()
    """Steps by which traffic moves to a new revision, each with more than the one before; none: one of 10 % with an
    analysis, else all at once. Windows, a pause, surge and deadline hold without steps as well.
    """
    analysis: Analysis | None = None
    """The test a new revision must stand while traffic moves; failing it moves all traffic back."""
    paused: bool = False
    """Stay in the present step, or let none begin. A revision that fails is rolled back all the same. `penstock rollout
    pause` does the same without a change of the spec.
    """
    windows: Annotated[tuple[TimeWindow, ...], Field(max_length=16)] = ()
    """When steps may begin; none: at any time. What was begun goes on, and is rolled back at any time."""
    max_surge: IntOrPercent = "100%"
    """How many replicas there may be beyond `replicas` while traffic moves; a percentage is rounded up."""
    max_unavailable: IntOrPercent = 0
    """How many ready replicas there may be less than `replicas`; a percentage is rounded down. Where both come to 0,
    one may, and of one replica nobody answers in between.
    """
    assignment: Assignment | None = None
    """Sticky by a header or cookie; without it each request is assigned by itself."""
    deadline: Duration = "10m"
    """A new revision of which not all wanted replicas were ready for this long is rolled back."""


class ModelSpec(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.scaling) || !has(self.replicas) || self.replicas <= self.scaling.maxReplicas",
            "replicas must not be above scaling.maxReplicas",
            lambda self: self.scaling is None or self.replicas <= self.scaling.max_replicas,
        ),
        Rule(
            "!has(self.runtime) || self.runtime != 'auto' || has(self.evaluation)",
            "runtime auto compares engines by what they keep of the quality: add an evaluation, or name an engine",
            lambda self: self.runtime != "auto" or self.evaluation is not None,
        ),
        Rule(
            f"!has(self.runtime) || !(self.runtime in {sorted(ENGINE_SUFFIXES)}) || has(self.evaluation)"
            f" || self.source.uri.matches('({_ENGINE_FILES})$')",
            "what is lowered to an engine has to prove itself: add an evaluation, or a source that is such a file",
            lambda self: (
                self.runtime not in ENGINE_SUFFIXES
                or self.evaluation is not None
                or re.search(f"({_ENGINE_FILES})$", self.source.uri) is not None
            ),
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
    """Forms of the model that may serve. What has passes must prove itself by the evaluation first; until then the
    first one without any serves.
    """
    evaluation: Evaluation | None = None
    """The gate: what a variant must prove before it may serve."""
    objective: Objective | None = None
    """What decides between variants that pass."""
    runtime: Name = "onnxruntime"
    """Engine: `onnxruntime`; `openvino` or `litert`, to which a build lowers all variants; `auto`, whichever
    of these three is best; `triton`, Triton's server; `kserve`, the server of `onnxruntime` as an
    InferenceService where KServe is installed; or the name of a ServingRuntime.
    """
    replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    """Replicas to run, as set by hand or through the scale subresource."""
    resources: Resources = Resources()
    """What each replica needs."""
    batching: Batching | None = None
    """How requests are computed together, by the built-in engine."""
    limits: Limits | None = None
    """What a request may take of the built-in engine."""
    traffic: Traffic | None = None
    """How many requests the router lets through."""
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
            "spec.scaling": spec.scaling,
            "spec.resources.accelerator": spec.resources.accelerator,
        }
        return tuple(path for path, value in fields.items() if value is not None)
