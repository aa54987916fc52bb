"""What of a build gets into a store, and into the few bytes of a summary."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.actuators.kubernetes import build_results
from serving import contract
from serving.artifacts import store
from serving.errors import ArtifactRefused, StorageUnavailable
from serving.variants import publishing

DIGEST = f"sha256:{hashlib.sha256(b'int8').hexdigest()}"


def variant(name: str, **told: Any) -> dict[str, Any]:
    return {
        "name": name,
        "accepted": True,
        "reason": "3.0 times less CPU time",
        "searchedBy": "",
        "passes": [],
        "made": [{"pass": "quantize"}],
        "digest": DIGEST,
        "bytes": 4,
        "cpuMs": {"1": 0.5, "32": 16.0},
        "gain": 3.0,
        "quality": {
            "value": 0.99,
            "drop": 0.001,
            "dropUpperBound": 0.006,
            "worstSlice": {"name": "3", "samples": 9, "drop": 0.0, "dropUpperBound": 0.05},
            "slices": [],
        },
        **told,
    }


def report(*variants: dict[str, Any], selected: str = "int8", **told: Any) -> dict[str, Any]:
    return {
        "build": "0123",
        "variants": list(variants),
        "selected": selected,
        **told,
    }


def published(folder: Path, *variants: dict[str, Any]) -> dict[str, Any]:
    (folder / "report.html").write_text("all of it")
    told = report(*variants, page=str(folder / "report.html"))
    return publishing.publish(told, f"file://{folder}/store", lambda name: None)


def stored(folder: Path) -> dict[str, bytes]:
    there = folder / "store"
    return {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*") if path.is_file()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "stage" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"int8")
    return path


def test_accepted_models_that_were_made_and_the_report_are_stored(tmp_path: Path, model: Path) -> None:
    uri = f"file://{model}"
    source = variant("fp32", made=[], uri="file:///source.onnx", digest="sha256:" + "0" * 64)
    told = published(tmp_path, source, variant("int8", uri=uri), variant("sparse", accepted=False, uri=uri))
    place = f"sha256-{hashlib.sha256(b'int8').hexdigest()}/model.onnx"
    files = stored(tmp_path)
    assert sorted(files) == ["builds/0123/report.html", "builds/0123/report.json", place]
    assert files[place] == b"int8"
    uris = {one["name"]: one.get("uri") for one in told["variants"]}
    assert uris == {"fp32": None, "int8": f"file://{tmp_path}/store/{place}", "sparse": None}
    assert json.loads(files["builds/0123/report.json"]) == told
    assert files["builds/0123/report.html"] == b"all of it"


def test_what_is_there_with_its_size_is_kept_and_half_of_it_is_not(tmp_path: Path, model: Path) -> None:
    uri = f"{contract.stored(f'file://{tmp_path}/store', DIGEST)}/model.onnx"
    there = Path(uri.removeprefix("file://"))
    there.parent.mkdir(parents=True)
    there.write_bytes(b"in")
    assert store.put(model, uri)
    assert there.read_bytes() == b"int8"
    written = there.stat()
    assert not store.put(model, uri)
    assert there.stat() == written


def test_a_model_of_several_files_is_not_published(tmp_path: Path, model: Path) -> None:
    model.with_name("model.onnx.data").touch()
    with pytest.raises(ArtifactRefused, match="variant int8 has its weights in a file beside it"):
        published(tmp_path, variant("int8", uri=f"file://{model}"))


def test_a_store_that_takes_nothing_leaves_no_report(tmp_path: Path, model: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(StorageUnavailable, match=r"could not be written: .*; see store, network and credentials"):
        published(tmp_path, variant("int8", uri=f"file://{model}"))
    assert (tmp_path / "store").read_bytes() == b""


def test_the_operator_reads_of_a_summary_all_that_it_decides_by(tmp_path: Path, model: Path) -> None:
    source = variant("fp32", made=[], gain=1.0, forCpu=[])
    int8_told = variant("int8", uri=f"file://{model}", searchedBy="auto", forCpu=["avx_vnni"])
    told = published(tmp_path, source, int8_told)
    found = build_results.parsed(publishing.summary(told))
    assert found is not None
    assert found.selected == "int8"
    assert found.page == told["page"]
    int8 = found.variants[1]
    assert int8.uri == told["variants"][1]["uri"]
    assert (int8.digest, int8.bytes, int8.cpu_ms, int8.gain) == (DIGEST, 4, {"1": 0.5, "32": 16.0}, 3.0)
    assert [one.for_cpu for one in found.variants] == [(), ("avx_vnni",)]
    assert (int8.searched_by, int8.reason) == ("auto", "3.0 times less CPU time")
    assert int8.quality is not None
    assert int8.quality.worst_slice is not None
    assert (int8.quality.drop_upper_bound, int8.quality.worst_slice.name) == (0.006, "3")


def test_a_number_that_is_none_does_not_get_into_a_summary() -> None:
    quality = variant("int8")["quality"] | {"drop": None}
    told = {**report(variant("int8", quality=quality), variant("x")), "store": "s3://m", "page": ""}
    assert "quality" not in json.loads(publishing.summary(told))["variants"][0]


def test_reasons_are_shortened_before_anything_else_is_left_out() -> None:
    variants = [variant(f"v{number}", reason="because " * 60, uri="s3://m") for number in range(8)]
    told = {**report(*variants, selected="v0"), "store": "s3://m/store"}
    said = json.loads(publishing.summary(told))
    assert said["cut"] == ["reason"]
    assert {one["reason"][-1] for one in said["variants"]} == {"…"}
    assert all("cpuMs" in one for one in said["variants"])


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)
VARIANTS = st.lists(
    st.builds(
        lambda name, accepted, reason, made, slice_name: variant(
            name,
            accepted=accepted,
            reason=reason,
            **({"uri": "s3://m/x"} if made and accepted else {}),
            quality=variant("x")["quality"] | {"worstSlice": {"name": slice_name, "dropUpperBound": 0.1}},
        ),
        NAMES,
        st.booleans(),
        st.text(st.characters(codec="utf-8"), max_size=600),
        st.booleans(),
        NAMES,
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda one: one["name"],
)


@given(VARIANTS, st.integers(0), st.integers(1024, 8192))
def test_a_summary_fits_and_what_it_says_is_what_the_report_says(
    variants: list[dict[str, Any]], chosen: int, most_bytes: int
) -> None:
    selected = variants[chosen % len(variants)]
    selected["accepted"] = True
    told = {**report(*variants, selected=selected["name"]), "store": "s3://models/store"}
    text = publishing.summary(told, most_bytes)
    assert len(text.encode()) <= most_bytes
    found = build_results.parsed(text)
    assert found is not None
    by_name = {one["name"]: one for one in variants}
    names = [one.name for one in found.variants]
    assert found.selected == selected["name"]
    assert selected["name"] in names
    assert names == [one["name"] for one in variants if one["name"] in names], "in the order of the report"
    cut = json.loads(text).get("cut", [])
    assert ("variants" in cut) == (len(names) < len(variants))
    if any(not one.accepted for one in found.variants):
        # Refused ones go before any accepted one does.
        assert {one["name"] for one in variants if one["accepted"]} <= set(names)
    for one in found.variants:
        was = by_name[one.name]
        assert (one.accepted, one.digest, one.gain, bool(one.uri)) == (
            was["accepted"], was["digest"], was["gain"], "uri" in was
        )  # fmt: skip
        assert one.reason == was["reason"] or (one.reason[-1] == "…" and was["reason"].startswith(one.reason[:-1]))
        assert one.cpu_ms == ({} if "cpuMs" in cut else was["cpuMs"])
