"""A build's result for whoever was not there: its models and its report in an artifact store, and a summary.

Each accepted model that the build made lies at ``STORE/sha256-HEX/model.onnx``, where serving pods fetch it (it keeps
its name, by which a server knows the engine), and the report at ``STORE/builds/NAME/report.json`` and ``.html``. Models
go first: what a report names is there.

The summary is what a decision needs of the report, in the few bytes that Kubernetes keeps of a container's last words,
so that a builder needs no access to any API. Where there is too little room, it says less and says so: reasons are
shortened first, then what the variants cost by batch size and what slice lost most is left out, then refused variants,
then accepted ones that were not selected. Where an artifact lies follows from its digest and its file name, so no URI
stands in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving import contract
from serving.artifacts import store
from serving.errors import ArtifactRefused

SUMMARY_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
_REASONS = (400, 200, 120, 80, 40)
"""To how many characters reasons are shortened, step by step."""
_NAME = 64
_DIGITS = 6

Report = Mapping[str, Any]


def publish(report: Report, place: str, told: Callable[[str], None]) -> dict[str, Any]:
    """``report`` as it stands in the store ``place``, with where its models are; ``told`` hears what is being sent.

    StorageUnavailable where the store takes nothing: then a report is not there, and models may be.
    """
    variants = []
    for one in report["variants"]:
        kept = {key: value for key, value in one.items() if key != "uri"}
        # What was not changed serves from where it came from.
        if one["accepted"] and one["made"]:
            model = _alone(one["name"], Path(one["uri"].removeprefix("file://")))
            kept["uri"] = f"{contract.stored(place, one['digest'])}/{model.name}"
            told(one["name"])
            store.put(model, kept["uri"])
        variants.append(kept)
    there = contract.stored_report(place, report["build"])
    published = {**report, "variants": variants, "page": there, "store": place}
    told("")
    file = Path(report["page"]).with_name("published.json")
    file.write_text(json.dumps(published, indent=1) + "\n")
    store.replace(Path(report["page"]), there)
    store.replace(file, there.removesuffix("html") + "json")
    return published


def _alone(name: str, model: Path) -> Path:
    if model.with_name(f"{model.name}.data").exists():
        raise ArtifactRefused(f"variant {name} has its weights in a file beside it; a store takes models of one file")
    return model


def summary(published: Report, most_bytes: int = SUMMARY_BYTES) -> str:
    """What decisions need of a published report, as JSON of at most ``most_bytes`` bytes."""
    variants = [_told(one) for one in published["variants"]]
    selected = published["selected"]
    said = {"store": published["store"], "build": published["build"], "selected": selected}

    def written(cut: list[str]) -> str:
        document = {**said, **({"cut": cut} if cut else {}), "variants": variants}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def fits() -> bool:
        return len(written(cut).encode()) <= most_bytes

    cut: list[str] = []
    for length in _REASONS:
        if fits():
            return written(cut)
        cut = ["reason"]
        variants = [{**one, "reason": shortened(one["reason"], length)} for one in variants]
    for field in ("cpuMs", "quality.worstSlice"):
        if fits():
            return written(cut)
        cut.append(field)
        variants = [_without(one, *field.split(".")) for one in variants]
    for is_dispensable in (
        lambda one: not one["accepted"],
        lambda one: one["name"] != selected,
    ):
        while not fits() and (last := next((one for one in reversed(variants) if is_dispensable(one)), None)):
            variants = [one for one in variants if one is not last]
            if "variants" not in cut:
                cut.append("variants")
    return written(cut)


def _told(one: Mapping[str, Any]) -> dict[str, Any]:
    """One variant's part of a summary."""
    kept = ("name", "accepted", "reason", "searchedBy", "digest", "bytes", "cpuMs", "gain", "forCpu")
    told = {key: one[key] for key in kept if one.get(key) not in (None, "", {}, [])} | {"reason": one["reason"]}
    if "uri" in one:
        told["stored"] = one["uri"].rpartition("/")[2]
    quality = one.get("quality")
    if quality and all(quality[key] is not None for key in ("value", "drop", "dropUpperBound")):
        told["quality"] = {key: round(quality[key], _DIGITS) for key in ("value", "drop", "dropUpperBound")}
        if (worst := quality.get("worstSlice")) and worst["dropUpperBound"] is not None:
            name = shortened(worst["name"], _NAME)
            bound = round(worst["dropUpperBound"], _DIGITS)
            told["quality"]["worstSlice"] = {"name": name, "dropUpperBound": bound}
    return told


def shortened(text: str, length: int) -> str:
    """At most ``length`` characters of a text, which shows where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _without(one: dict[str, Any], field: str, *below: str) -> dict[str, Any]:
    if field not in one:
        return one
    if below:
        return {**one, field: _without(one[field], *below)}
    return {key: value for key, value in one.items() if key != field}
