"""The smaller examples: their files are there, are small, and are what the README says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from operators.api.kinds import parse
from operators.api.model import Model
from operators.cli import manifests

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = ("graph", "tabular", "text")
MAX_BYTES = 1024 * 1024


def model(name: str) -> Model:
    (found,) = manifests.load([str(EXAMPLES / name / "model.yaml")], "default")
    parsed = parse(found.data)
    assert isinstance(parsed, Model)
    return parsed


def shipped(name: str) -> list[Path]:
    return [path for path in (EXAMPLES / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def table(name: str) -> dict[str, list[str]]:
    """Variant → its row, as ``penstock build`` printed it for the README; what is to serve is the one with a star."""
    printed = (EXAMPLES / name / "README.md").read_text().partition("VARIANT ")[2].partition("```")[0]
    rows = [line.split() for line in printed.splitlines()[1:]]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_fits_into_a_mebibyte_and_its_readme_names_every_file(name: str) -> None:
    assert sum(path.stat().st_size for path in shipped(name)) <= MAX_BYTES
    said = (EXAMPLES / name / "README.md").read_text()
    assert [path.name for path in shipped(name) if f"`{path.name}`" not in said and path.name != "README.md"] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_measured_every_variant_and_one_of_them_serves(name: str) -> None:
    rows = table(name)
    assert list(rows) == [variant.name for variant in model(name).spec.variants]
    assert [row[0] for row in rows.values()].count("*") == 1


@pytest.mark.parametrize("name", ["graph", "text"])
def test_the_source_is_as_good_as_the_readme_says(name: str) -> None:
    session = onnxruntime.InferenceSession(EXAMPLES / name / "model.onnx", providers=["CPUExecutionProvider"])
    with np.load(EXAMPLES / name / "eval.npz") as samples:
        inputs = session.get_inputs()
        fed = {one.name: samples["x" if len(inputs) == 1 else one.name] for one in inputs}
        right = session.run(None, fed)[0].argmax(axis=-1) == samples["y"]
    row = next(iter(table(name).values()))
    assert f"{right.mean():.4f}" in row
