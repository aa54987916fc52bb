from __future__ import annotations

import itertools

import pytest

from serving.variants import search
from serving.variants.recipe import Location, Search, Training
from serving.variants.search import Facts, Tried

DATA = Location(uri="file:///samples.npz")
ALL = Search(calibration=DATA, training=Training(data=DATA))
CONVOLUTIONS = Facts(frozenset({"Conv", "Relu", "Gemm"}), computes_fp16=False)
PRODUCTS = Facts(frozenset({"MatMul", "Add"}), computes_fp16=False)


def tried(keeps: set[str], asked: Search = ALL, facts: Facts = CONVOLUTIONS) -> list[str]:
    """Names in the order in which a search tries them, where those in ``keeps`` keep the quality."""
    found: list[Tried] = []
    for _ in itertools.repeat(None, 100):
        variant = search.following("auto", asked, facts, found)
        if variant is None:
            return [one.variant.name.removeprefix("auto-") for one in found]
        found.append(Tried(variant, variant.name.removeprefix("auto-") in keeps))
    raise AssertionError("the search does not end")


def test_ratios_are_climbed_and_the_finish_is_put_on_the_last_two_that_keep() -> None:
    keeps = {"int8", "pruned50", "pruned75", "pruned75-int8"}
    assert tried(keeps) == ["int8", "pruned50", "pruned75", "pruned87", "pruned75-int8", "pruned50-int8"]


def test_a_ratio_that_does_not_keep_ends_the_climb() -> None:
    assert tried({"int8"}) == ["int8", "pruned50"]


def test_the_next_finish_is_tried_where_the_first_does_not_keep() -> None:
    assert tried({"int8-percentile", "pruned50"}) == [
        "int8",
        "int8-percentile",
        "pruned50",
        "pruned75",
        "pruned50-int8-percentile",
    ]


@pytest.mark.parametrize(("facts", "first"), [(CONVOLUTIONS, "int8"), (PRODUCTS, "int8-dynamic")])
def test_dynamic_quantization_is_tried_where_nothing_but_products_is(facts: Facts, first: str) -> None:
    assert tried(set(), facts=facts)[0] == first


def test_the_layers_that_lose_most_are_left_in_floats_where_no_other_integers_keep() -> None:
    assert tried({"int8-mixed"}, Search(calibration=DATA)) == ["int8", "int8-percentile", "int8-mixed"]


def test_without_samples_to_learn_from_nothing_is_pruned() -> None:
    assert tried({"int8"}, Search(calibration=DATA)) == ["int8"]


def test_half_floats_are_tried_where_they_are_computed() -> None:
    facts = Facts(CONVOLUTIONS.operators, computes_fp16=True)
    assert tried(set(), Search(), facts) == ["fp16"]


def test_a_graph_with_nothing_to_quantize_or_prune_ends_at_once() -> None:
    assert tried(set(), facts=Facts(frozenset({"TreeEnsembleClassifier"}), computes_fp16=False)) == []


EVERYWHERE = Facts(CONVOLUTIONS.operators, computes_fp16=False, computes_bf16=True, engines=("openvino", "litert"))


def test_other_engines_get_the_best_net_with_its_finish_and_in_numbers_of_their_own() -> None:
    keeps = {"int8", "pruned50", "pruned50-int8"}
    assert tried(keeps, facts=EVERYWHERE)[-4:] == [
        "pruned50-int8",
        "pruned50-int8-openvino",
        "pruned50-openvino-bf16",
        "pruned50-litert-int8",
    ]


def test_of_two_rungs_the_smaller_file_is_lowered() -> None:
    found: list[Tried] = []
    while (variant := search.following("auto", ALL, EVERYWHERE, found)) is not None:
        is_odd = "pruned87" in variant.name  # of channels that fill no vector
        found.append(Tried(variant, True, bytes=300 if is_odd else 200))
    assert [one.variant.name for one in found if "openvino" in one.variant.name] == [
        "auto-pruned75-int8-openvino",
        "auto-pruned75-openvino-bf16",
    ]


def test_an_engine_is_given_the_source_where_nothing_else_keeps() -> None:
    assert tried(set(), Search(), EVERYWHERE) == ["openvino", "openvino-bf16", "litert-int8"]


def test_bf16_is_left_out_where_the_cpu_does_not_compute_it() -> None:
    facts = Facts(CONVOLUTIONS.operators, computes_fp16=False, engines=("openvino",))
    assert tried({"int8"}, Search(calibration=DATA), facts) == ["int8", "int8-openvino"]


def test_a_forest_is_given_to_no_other_engine() -> None:
    trees = Facts(frozenset({"TreeEnsembleClassifier"}), computes_fp16=False, engines=("openvino", "litert"))
    assert tried(set(), facts=trees) == []


@pytest.mark.parametrize(("excluded", "is_tried"), [(2, False), (171, True)])
def test_measured_layers_are_tried_beside_a_rule_that_left_out_many(excluded: int, is_tried: bool) -> None:
    facts = Facts(CONVOLUTIONS.operators, computes_fp16=False, engines=("openvino",))
    found: list[Tried] = []
    while (variant := search.following("auto", Search(calibration=DATA), facts, found)) is not None:
        found.append(Tried(variant, keeps=True, excluded=excluded))
    names = {one.variant.name for one in found}
    assert ({"auto-int8-mixed", "auto-int8-mixed-openvino"} <= names) is is_tried
    assert {"auto-int8", "auto-int8-openvino"} <= names


def test_a_pruned_net_is_given_to_an_engine_where_no_integers_keep() -> None:
    assert tried({"pruned50"}, facts=EVERYWHERE)[-3:] == [
        "pruned50-openvino",
        "pruned50-openvino-bf16",
        "pruned50-litert-int8",
    ]
