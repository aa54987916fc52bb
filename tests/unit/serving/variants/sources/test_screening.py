from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ArtifactRefused
from serving.variants.sources import screening

SIZE = "Symbol('s77', positive=True, integer=True)"
PLACE = {"path_name": "weight_0", "is_param": True, "use_pickle": False}
PROGRAM: dict[str, Any] = {
    "graph_module": {
        "graph": {
            "nodes": [
                {
                    "target": "torch.ops.aten.relu.default",
                    "inputs": [{"name": "input", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}],
                    "metadata": {"stack_trace": 'File "train.py", line 6, in forward'},
                }
            ],
            "tensor_values": {"x": {"sizes": [{"as_expr": {"expr_str": SIZE}}, {"as_int": 8}]}},
        },
        "module_call_graph": [{"in_spec": '[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]'}],
    },
    "guards_code": ["L['x'].size()[0] >= 2"],
    "torch_version": "2.15.0+cu132",
}
MEMBERS: dict[str, bytes] = {
    "data/weights/weight_0": bytes(8),
    "data/weights/model_weights_config.json": json.dumps({"config": {"line.weight": PLACE}}).encode(),
    "data/constants/model_constants_config.json": b'{"config": {}}',
    "models/model.json": json.dumps(PROGRAM).encode(),
    "data/sample_inputs/model.pt": b"a pickle",
    "archive_format": b"pt2",
    ".data/version": b"6",
}


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name, content in (MEMBERS | members).items():
            written.writestr(f"net/{name}", content)
    return path


def screened(folder: Path, **members: bytes) -> dict[str, bytes]:
    screening.screened(archive(folder / "net.pt2", **members), folder / "safe.pt2")
    with zipfile.ZipFile(folder / "safe.pt2") as safe:
        return {name.removeprefix("net/"): safe.read(name) for name in safe.namelist()}


def test_a_program_keeps_its_numbers_and_its_graph_and_loses_examples_traces_and_guards(tmp_path: Path) -> None:
    safe = screened(tmp_path)
    graph = copy.deepcopy(PROGRAM)
    graph["guards_code"] = []
    graph["graph_module"]["graph"]["nodes"][0]["metadata"] = {}
    assert json.loads(safe.pop("models/model.json")) == graph
    assert safe == {
        name: b"" if name.endswith(".pt") else MEMBERS[name] for name in MEMBERS if "model.json" not in name
    }


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("torch.ops.aten.relu.default", "torch.hub.load", "has 'torch.hub.load' as target, and only ATen's operators"),
        ("torch.ops.aten.relu.default", "_operator.attrgetter", "has '_operator.attrgetter' as target"),
        ("torch.ops.aten.relu.default", "#hop:x", "has '#hop:x' as target"),
        (SIZE, "__import__('os').system('id')", 'has "__import__('),
        (SIZE, "s7.__class__", "has 's7.__class__' as expr_str"),
        ('"name": "input"', '"name": "x=print(1), y"', "has 'x=print(1), y' as name"),
        ('{"x": {"sizes"', '{"x();y": {"sizes"', "has 'x();y' as a name"),
        ("builtins.tuple", "collections.defaultdict", "collections.defaultdict"),
    ],
)
def test_a_text_that_loading_could_run_is_refused(tmp_path: Path, before: str, after: str, said: str) -> None:
    hostile = json.dumps(PROGRAM).replace(before, after)
    assert hostile != json.dumps(PROGRAM)
    with pytest.raises(ArtifactRefused) as refused:
        screened(tmp_path, **{"models/model.json": hostile.encode()})
    assert said in str(refused.value)


def test_weights_that_are_a_pickle_are_refused(tmp_path: Path) -> None:
    pickled = json.dumps({"config": {"line.weight": PLACE | {"use_pickle": True}}}).encode()
    with pytest.raises(ArtifactRefused, match=r"net\.pt2 holds a pickle, and loading one runs any code it holds"):
        screened(tmp_path, **{"data/weights/model_weights_config.json": pickled})


@pytest.mark.parametrize(
    "name",
    ["data/aotinductor/model/model.so", "data/weights/model.pt", "data/constants/opaque_obj_0", "models/other.json"],
)
def test_anything_that_is_neither_numbers_nor_the_graph_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactRefused, match=rf"net\.pt2 holds net/{name}, which is neither numbers nor a graph"):
        screened(tmp_path, **{name: b"?"})
