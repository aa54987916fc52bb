"""Variants that a build makes: what serves before, while and after it runs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from pydantic import ValidationError

from operators.api.model import Model
from operators.api.plan import BuildObserved, BuildState
from operators.api.status import BuildReport
from operators.planning import builds
from tests.unit.operators.planning.world import World, digest, model

QUALITY = {"value": 0.99, "drop": 0.001, "dropUpperBound": 0.006}
INT8 = {
    "name": "int8",
    "accepted": True,
    "reason": "3.0 times less CPU time",
    "uri": "file:///builds/stages/quantize-1/model.onnx",
    "digest": digest("b"),
    "bytes": 1000,
    "quality": QUALITY,
    "cpuMs": {"1": 0.3},
    "gain": 3.0,
}
TINY = {**INT8, "name": "tiny", "uri": "file:///builds/stages/prune-1/model.onnx", "digest": digest("c"), "gain": 9.0}
FP32 = {"name": "fp32", "accepted": True, "reason": "the source itself", "digest": digest("a"), "gain": 1.0}
SLOW = {**INT8, "name": "slow", "accepted": False, "reason": "it takes 5.0 times the CPU time of the source"}


def quantized(letter: str = "a", *names: str, **spec: Any) -> Model:
    passes = [{"quantize": {"mode": "dynamic"}}]
    variants = [{"name": "fp32"}, *({"name": name, "passes": passes} for name in names or ("int8",))]
    return model(letter, variants=variants, evaluation={"dataset": {"uri": "s3://models/eval.npz"}}, **spec)


def done(selected: str, *variants: dict[str, object]) -> BuildObserved:
    report = BuildReport.model_validate({"variants": variants, "selected": selected})
    return BuildObserved(BuildState.DONE, report=report)


def serving(world: World) -> str:
    return world.model.status.variant


def test_the_source_serves_until_the_variants_are_made() -> None:
    world = World(quantized())
    world.settle()
    assert serving(world) == "fp32"
    assert world.condition("VariantsReady") == ("False", "Building")
    assert world.message("VariantsReady") == "model digits: variants are being made: int8: quantize (40%)"
    assert world.condition("Ready") == ("True", "Serving")
    assert [(v.name, v.state) for v in world.model.status.variants] == [("fp32", "Selected"), ("int8", "Preparing")]


def test_the_best_variant_takes_over_when_the_build_is_done() -> None:
    world = World(quantized("a", "int8", "slow"))
    world.settle()
    world.built = done("int8", FP32, INT8, SLOW)
    world.settle()
    assert serving(world) == "int8"
    assert world.model.status.gain == "3.0x"
    assert world.states() == [("b", "Serving"), ("a", "Retired")]
    found = {v.name: (v.state, v.reason) for v in world.model.status.variants}
    assert found == {
        "fp32": ("Ready", "an earlier variant can be served"),
        "int8": ("Selected", "3.0 times less CPU time"),
        "slow": ("Refused", "it takes 5.0 times the CPU time of the source"),
    }
    assert world.model.status.variants[1].quality is not None
    assert world.model.status.variants[1].cpu_ms == {"1": 0.3}


def test_what_was_proven_on_one_kind_of_processor_has_another_variant_for_the_others() -> None:
    world = World(quantized("a", "int8", "tiny", "slow"))
    vnni = {"forCpu": ["avx512_vnni", "avx_vnni"]}
    world.built = done("tiny", FP32, INT8 | vnni, TINY | vnni, SLOW)
    (workload,) = [one for one in world.settle().workloads if one.variant == "tiny"]
    assert workload.otherwise is not None
    assert (workload.otherwise.variant, workload.otherwise.digest) == ("fp32", digest("a"))
    assert world.message("RolloutComplete").endswith("(tiny) has all traffic")

    world.workloads[workload.name] = dataclasses.replace(world.workloads[workload.name], otherwise=1)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.message("RolloutComplete").endswith(
        "(tiny) has all traffic; 1 of 1 replicas serve fp32: their processor has none of avx512_vnni, avx_vnni, with "
        "which tiny was proven"
    )


def test_the_best_of_what_is_as_good_on_every_processor_is_for_the_others() -> None:
    world = World(quantized("a", "int8", "tiny"))
    world.built = done("tiny", FP32, INT8, TINY | {"forCpu": ["avx_vnni"]})
    (workload,) = [one for one in world.settle().workloads if one.variant == "tiny"]
    assert workload.otherwise is not None
    assert workload.otherwise.variant == "int8"

    world = World(quantized("a", "int8", "tiny"))
    world.built = done("int8", FP32, INT8, TINY | {"forCpu": ["avx_vnni"]})
    assert [one.otherwise for one in world.settle().workloads] == [None]


def test_nothing_goes_back_to_the_source_while_a_changed_spec_is_built() -> None:
    world = World(quantized())
    world.built = done("int8", FP32, INT8)
    world.settle()
    world.built = BuildObserved(BuildState.RUNNING, "fp32: evaluate (10%)")
    world.edit(quantized("e"))
    world.settle()
    assert serving(world) == "int8"
    assert world.states()[0] == ("b", "Serving")
    assert world.condition("Ready") == ("True", "Serving")


def test_an_engine_that_refuses_the_best_gets_the_next_best() -> None:
    world = World(quantized("a", "int8", "tiny"))
    world.built = done("tiny", FP32, INT8, TINY)
    world.tick()
    (name,) = world.workloads
    world.refuse(name, "no kernel for it")
    world.settle()
    assert serving(world) == "int8"
    assert [(v.name, v.state) for v in world.model.status.variants][2] == ("tiny", "Refused")


def test_a_build_that_is_refused_leaves_the_source_and_its_reason() -> None:
    world = World(quantized())
    world.built = BuildObserved(BuildState.REFUSED, "eval.npz: array x has shape [3]")
    world.settle()
    assert serving(world) == "fp32"
    assert world.condition("VariantsReady") == ("True", "Selected")
    assert world.model.status.variants[1].reason == "eval.npz: array x has shape [3]"


def test_where_nothing_is_built_the_passes_are_named() -> None:
    world = World(quantized(), cannot_build="it has passes, and nothing runs them here")
    world.settle()
    assert serving(world) == "fp32"
    expected = "this version stores, but does not act on: spec.evaluation, spec.variants[int8].passes"
    assert world.message("Accepted") == f"model digits: {expected}"
    assert world.model.status.variants[1].state == "NotMade"


def test_a_foreign_artifact_must_prove_itself_as_well() -> None:
    """No path deploys what the gate has not seen, where there is a gate."""
    foreign = {"name": "mine", "source": {"uri": "s3://models/b.onnx", "digest": digest("b")}}
    evaluation = {"dataset": {"uri": "s3://models/eval.npz"}}
    world = World(model(variants=[foreign, {"name": "fp32"}], evaluation=evaluation))
    world.settle()
    assert serving(world) == "fp32"
    world.built = done("fp32", {**SLOW, "name": "mine"}, FP32)
    world.settle()
    assert serving(world) == "fp32"


def test_a_search_is_replaced_by_what_it_found() -> None:
    variants = [{"name": "fp32"}, {"name": "auto", "search": {}}]
    world = World(model(variants=variants, evaluation={"dataset": {"uri": "s3://models/eval.npz"}}))
    world.settle()
    assert [(v.name, v.state) for v in world.model.status.variants] == [("fp32", "Selected"), ("auto", "Preparing")]
    found = [{**INT8, "name": "auto-int8", "searchedBy": "auto"}, {**TINY, "name": "auto-tiny", "searchedBy": "auto"}]
    world.built = done("auto-tiny", FP32, *found)
    world.settle()
    assert serving(world) == "auto-tiny"
    states = [(v.name, v.state) for v in world.model.status.variants]
    assert states == [("fp32", "Ready"), ("auto-int8", "Ready"), ("auto-tiny", "Selected")]


def test_the_build_is_named_by_what_it_is_asked() -> None:
    one, same = builds.wanted(quantized(), digest("a")), builds.wanted(quantized(), digest("a"))
    other = builds.wanted(quantized(batching={"maxSize": 8}), digest("a"))
    assert one is not None
    assert one == same
    assert other is not None
    assert one.name != other.name
    assert json.loads(one.document)["source"] == {"uri": "s3://models/a.onnx", "digest": digest("a")}


def test_what_has_neither_passes_nor_a_gate_needs_no_build() -> None:
    assert builds.wanted(model(), digest("a")) is None
    assert builds.wanted(model(), None) is None


def test_a_source_that_is_no_onnx_serves_what_a_build_made_of_it() -> None:
    world = World(model(source={"uri": "s3://models/a.skops", "digest": digest("a")}))
    world.settle()
    assert world.condition("VariantsReady") == ("False", "Building")
    world.built = done("default", {**INT8, "name": "default", "reason": "the source itself"})
    world.settle()
    assert serving(world) == "default"


def test_a_pickle_is_refused_in_the_words_of_the_build() -> None:
    world = World(model(source={"uri": "s3://models/a.pkl", "digest": digest("a")}))
    world.built = BuildObserved(BuildState.REFUSED, "a.pkl is a pickle")
    world.settle()
    assert world.model.status.variants[0].reason == "a.pkl is a pickle"
    assert world.condition("Ready")[0] == "False"


def test_a_runtime_to_which_models_are_lowered_has_all_variants_built_for_it() -> None:
    world = World(quantized(runtime="openvino"))
    (build,) = world.settle().builds
    assert (serving(world), world.condition("Ready")[0]) == ("", "False")
    assert json.loads(build.document)["engine"] == "openvino"

    lowered = {**FP32, "uri": "file:///builds/stages/lower-1/model.openvino.onnx", "digest": digest("d")}
    world.built = done("int8", lowered, INT8)
    world.settle()
    assert serving(world) == "int8"


def test_what_serves_goes_on_until_the_other_engine_s_variants_are_made() -> None:
    world = World(quantized())
    world.built = done("int8", FP32, INT8)
    world.settle()
    world.built = BuildObserved(BuildState.RUNNING, "fp32: lower (40%)")
    world.edit(quantized(runtime="litert"))
    world.settle()
    assert (serving(world), world.condition("VariantsReady")) == ("int8", ("False", "Building"))


def test_the_best_engine_is_taken_where_all_are_tried() -> None:
    world = World(quantized(runtime="auto"))
    world.settle()
    assert serving(world) == "fp32"
    forms = [
        {**INT8, "accepted": False, "reason": "variant int8-openvino, tried beside it, takes 1.04 times less CPU time"},
        {**TINY, "name": "int8-openvino", "searchedBy": "int8"},
        {**SLOW, "name": "fp32-litert", "searchedBy": "fp32"},
    ]
    world.built = done("int8-openvino", FP32, *forms)
    world.settle()
    assert serving(world) == "int8-openvino"
    assert {v.name: v.state for v in world.model.status.variants} == {
        "fp32": "Ready",
        "fp32-litert": "Refused",
        "int8": "Refused",
        "int8-openvino": "Selected",
    }


@pytest.mark.parametrize(
    ("engine", "uri"), [("litert", "s3://models/m.tflite"), ("openvino", "s3://m/m.openvino.onnx")]
)
def test_a_file_of_the_engine_serves_as_it_is(engine: str, uri: str) -> None:
    plain = model("a", runtime=engine, source={"uri": uri, "digest": digest("a")})
    assert builds.wanted(plain, digest("a")) is None


def test_engines_are_compared_by_an_evaluation_alone() -> None:
    with pytest.raises(ValidationError, match="add an evaluation, or name an engine"):
        model("a", runtime="auto")
    with pytest.raises(ValidationError, match="has to prove itself: add an evaluation"):
        model("a", runtime="litert")
