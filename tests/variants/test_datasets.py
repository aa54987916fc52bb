"""Every kind of dataset in a build as a person runs it, and a hostile one in the process that reads it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from serving.errors import ArtifactRefused
from serving.variants import stages

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
PENSTOCK = Path(sys.executable).with_name("penstock")
SAMPLES = 300
pytestmark = pytest.mark.timeout(300)

MODEL = """
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {{name: quick}}
spec:
  source: {{uri: {digits}/model.onnx}}
  contract:
    input: {{image: {{size: [32, 32], mode: grey, scale: 0.00392156863}}}}
    output: {{labels: [zero, one, two, three, four, five, six, seven, eight, nine]}}
  variants:
    - name: fp32
    - name: int8
      passes: [{{quantize: {{calibration: {{uri: {data}}}}}}}]
  evaluation: {{dataset: {{uri: {data}}}, worstSlice: {{by: label, maxDrop: 0.2}}}}
"""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def as_npz(path: Path, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], y: list[int]) -> Path:
    np.savez(path / "d.npz", x=x, y=np.array(y))
    return path / "d.npz"


def as_parquet(path: Path, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], y: list[int]) -> Path:
    parquet.write_table(pa.table({"x": [one.ravel() for one in x], "y": y}), path / "d.parquet")
    return path / "d.parquet"


def as_pictures(path: Path, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], y: list[int]) -> Path:
    folder = path / "d"
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for number, (picture, label) in enumerate(zip(x, y, strict=True)):
            Image.fromarray(np.rint(picture[0] * 255).astype(np.uint8)).save(folder / f"{number}.png")
            table.writerow([f"{number}.png", NAMES[label]])
    return folder


def test_the_same_samples_of_every_kind_are_worth_the_same(tmp_path: Path) -> None:
    with np.load(DIGITS / "eval.npz") as given:
        x, y = given["x"][:SAMPLES], given["y"][:SAMPLES].tolist()
    found = {}
    for kind in (as_npz, as_parquet, as_pictures):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        (folder / "model.yaml").write_text(MODEL.format(digits=DIGITS, data=kind(folder, x, y)))
        command = [str(PENSTOCK), "build", str(folder / "model.yaml"), "--store", str(tmp_path / "store"), "-o", "json"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        found[kind] = [(one["name"], one["digest"], one["quality"]) for one in json.loads(ended.stdout)["variants"]]
    assert found[as_npz] == found[as_parquet] == found[as_pictures]
    assert found[as_npz][1][2]["samples"] == SAMPLES


def test_what_unpacks_to_more_than_a_stage_may_have_is_refused_and_the_builder_lives(tmp_path: Path) -> None:
    """1.5 GiB of one value in a record batch of some KiB, read by a process that may have 1 GiB."""
    zeros = np.zeros(1536 * 2**20 // 4, np.float32)
    table = pa.record_batch(
        {"x": pa.FixedSizeListArray.from_arrays(pa.array(zeros), 1024), "y": zeros[: len(zeros) // 1024]}
    )
    path = tmp_path / "bomb.arrow"
    with pa.OSFile(str(path), "wb") as file:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_batch(table)
    assert path.stat().st_size < 2**20
    stage = stages.Stage(
        "outcome", {"metric": "accuracy", "by": None}, {"model": DIGITS / "model.onnx", "dataset": path}, ()
    )
    with (
        stages.opened(tmp_path / "stages", stages.Limits(memory_bytes=2**30), lambda: None) as made,
        pytest.raises(ArtifactRefused, match="needs more than the 1024 MiB of memory"),
    ):
        made.made(stage)
