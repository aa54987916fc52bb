"""Sources that are no ONNX, through whole builds: the tabular example, and files that must not be read."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from serving.variants import toolchains
from tests.variants.test_build import build, named

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.timeout(600)

MODEL = """
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {{name: given}}
spec: {{source: {{uri: {source}}}}}
"""


def refusal(folder: Path, source: Path) -> str:
    (folder / "model.yaml").write_text(MODEL.format(source=source))
    ended = build(folder / "model.yaml", folder / "store")
    assert ended.returncode == 1, ended.stdout
    return ended.stderr


def table(text: str) -> dict[str, list[str]]:
    """Variant → QUALITY, DROP and AT MOST of a table that ``penstock build`` printed."""
    rows = [line.replace(" * ", "   ").split() for line in text.partition("VARIANT ")[2].splitlines()[1:]]
    found = {}
    for row in rows:
        if not row or row[0] in ("```", "*"):
            break
        found[row[0]] = row[3:6]
    return found


def test_a_forest_becomes_onnx_that_answers_as_it_does_and_a_linear_model_takes_its_place(tmp_path: Path) -> None:
    ended = build(EXAMPLES / "tabular" / "model.yaml", tmp_path, "-o", "json")
    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    (imported,) = named(report, "forest")["made"]
    assert imported["from"] == "model.skops"
    assert imported["difference"] <= 1e-5
    assert imported["compared"] == "256 samples of the dataset"
    assert report["selected"] == "linear"
    assert named(report, "int8")["reason"].endswith("none of Conv, ConvTranspose, MatMul, Gemm; leave quantize out")
    printed = build(EXAMPLES / "tabular" / "model.yaml", tmp_path).stdout
    assert table(printed) == table((EXAMPLES / "tabular" / "README.md").read_text())


def test_a_type_that_is_not_trusted_is_refused_by_name(tmp_path: Path) -> None:
    """A file whose classifier was changed into what starts a program."""
    with zipfile.ZipFile(EXAMPLES / "tabular" / "linear.skops") as given:
        members = {name: given.read(name) for name in given.namelist()}
    schema = members["schema.json"].decode()
    hostile = schema.replace('"LogisticRegression"', '"Popen"').replace("sklearn.linear_model._logistic", "subprocess")
    assert hostile != schema
    with zipfile.ZipFile(tmp_path / "hostile.skops", "w") as changed:
        for name, content in (members | {"schema.json": hostile.encode()}).items():
            changed.writestr(name, content)
    assert "hostile.skops holds subprocess.Popen, and nothing but scikit-learn's own" in refusal(
        tmp_path, tmp_path / "hostile.skops"
    )


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nabort\n(tR.")
    assert "model.pkl is a pickle, and loading one runs any code it holds, so it never is; save the model with" in (
        refusal(tmp_path, tmp_path / "model.pkl")
    )


def test_a_file_that_is_no_skops_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"PK nothing")
    assert "model.skops cannot be turned into ONNX: BadZipFile" in refusal(tmp_path, tmp_path / "model.skops")


PROGRAM = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.line = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 3)
        self.register_buffer("shift", torch.arange(3.0)[None])

    def forward(self, x):
        features = self.norm(self.conv(x)).relu().mean((2, 3)).reshape(x.shape[0], 8)
        return torch.softmax(self.line(features) + self.shift, -1)

free = {"x": {0: torch.export.Dim("N")}}
for name, shapes in (("free", free), ("fixed", None)):
    program = torch.export.export(Net().eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, f"{name}.pt2")
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``free.pt2`` and ``fixed.pt2`` are, as a user of PyTorch writes them."""
    folder = tmp_path_factory.mktemp("programs")
    python = toolchains.python("torch", lambda: None)
    subprocess.run([str(python), "-W", "ignore", "-c", PROGRAM], cwd=folder, check=True, capture_output=True)
    return folder


def test_a_program_becomes_onnx_with_a_free_batch_that_answers_as_it_does(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(MODEL.format(source=programs / "free.pt2"))
    ended = build(tmp_path / "model.yaml", tmp_path / "store", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    (variant,) = json.loads(ended.stdout)["variants"]
    (imported,) = variant["made"]
    assert imported["difference"] <= 1e-5
    assert imported["compared"] == "256 samples of noise"
    assert set(variant["cpuMs"]) == {"1", "2", "4", "8", "16", "32"}


def test_a_program_with_a_batch_of_a_fixed_size_is_refused_with_how_to_free_it(programs: Path, tmp_path: Path) -> None:
    assert (
        "fixed.pt2: input x has shape [2, 1, 8, 8]; export it with its first dimension free: "
        "torch.export.export(model, inputs, dynamic_shapes={'x': {0: Dim('N')}})"
    ) in refusal(tmp_path, programs / "fixed.pt2")


def test_examples_in_a_program_are_pickles_and_are_never_read(programs: Path, tmp_path: Path) -> None:
    """Those of a file that torch.export.load would run."""
    trace, file = tmp_path / "trace", tmp_path / "hostile.pt2"
    with zipfile.ZipFile(programs / "free.pt2") as members, zipfile.ZipFile(file, "w") as copy:
        for name in members.namelist():
            examples = name.endswith("sample_inputs/model.pt")
            copy.writestr(name, f"cos\nsystem\n(S'touch {trace}'\ntR." if examples else members.read(name))
    (tmp_path / "model.yaml").write_text(MODEL.format(source=file))
    assert build(tmp_path / "model.yaml", tmp_path / "store").returncode == 0
    assert not trace.exists()
