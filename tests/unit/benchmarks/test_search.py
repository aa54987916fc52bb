"""The replay of a search on a table that is known."""

from __future__ import annotations

from benchmarks import search as benchmark
from serving.variants import choosing, profiling
from serving.variants.choosing import Cell, Took
from serving.variants.recipe import Location, Search, Training
from serving.variants.search import Facts, Tried

DATA = Location(uri="file:///samples.npz")
ASKED = Search(calibration=DATA, training=Training(data=DATA))
FACTS = Facts(frozenset({"Conv", "Gemm"}), computes_fp16=False, computes_bf16=True, engines=("openvino", "litert"))


def test_an_exhaustive_search_makes_each_structure_in_each_kind_of_numbers_on_each_engine() -> None:
    made = [one.name for one in benchmark.forms(ASKED, FACTS, ["int8"])]
    assert len(made) == len(set(made)) == 4 * 7 - 1
    assert {"auto-int8", "auto-pruned50-int8-openvino", "auto-pruned75-openvino-bf16", "auto-litert"} <= set(made)


def test_what_a_search_tries_is_part_of_what_is_made() -> None:
    made = {one.name: Tried(one, keeps=True, bytes=1) for one in benchmark.forms(ASKED, FACTS, ["int8"])}
    ms = {name: 1.0 + place for place, name in enumerate(["source", *made])}
    table = {
        Cell(name, threads, size): Took(ms[name] * (1 + size) * threads, ms[name])
        for name in ms
        for threads in {1, benchmark._aim().cores}
        for size in profiling.SIZES
    }
    found = benchmark.replayed(table, made, ["source"], ASKED, FACTS)
    assert found.pick == Cell("source", 1, 32)
    assert found.measured.items() <= table.items()
    assert choosing.best(table, benchmark._aim(), ms) == found.pick
    assert set(found.made) <= set(made)
