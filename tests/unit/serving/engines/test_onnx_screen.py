import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import AttributeProto, SparseTensorProto, TensorProto, helper

from serving.engines import onnx_screen
from serving.errors import ArtifactRefused
from tests.rig import onnx_models

SECRET = b"sixteen bytes of"
Graph = Callable[[TensorProto], onnx.GraphProto]


def external(location: str, element_type: int = TensorProto.UINT8, size: int = 16) -> TensorProto:
    tensor = TensorProto(name="w", data_type=element_type, dims=[size], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*nodes: onnx.NodeProto, initializer: list[TensorProto] | None = None) -> onnx.GraphProto:
    outputs = [onnx_models.value("y", TensorProto.UINT8, [16])]
    return helper.make_graph(list(nodes), "g", [], outputs, initializer or [])


def initializer(tensor: TensorProto) -> onnx.GraphProto:
    return graph(helper.make_node("Identity", ["w"], ["y"]), initializer=[tensor])


def constant(tensor: TensorProto) -> onnx.GraphProto:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(tensor)
    return graph(node)


def sparse(tensor: TensorProto) -> SparseTensorProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [16], list(range(16)))
    return SparseTensorProto(values=tensor, indices=indices, dims=[16])


def sparse_attribute(tensor: TensorProto) -> onnx.GraphProto:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(sparse(tensor))
    return graph(node)


def sparse_initializer(tensor: TensorProto) -> onnx.GraphProto:
    found = graph(helper.make_node("Identity", ["w"], ["y"]))
    found.sparse_initializer.append(sparse(tensor))
    return found


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=initializer(tensor), else_branch=initializer(external("plain.bin"))
    )
    return graph(node, initializer=[helper.make_tensor("c", TensorProto.BOOL, [], [True])])


PLACES: dict[str, Graph] = {
    "initializer": initializer,
    "Constant": constant,
    "sparse attribute": sparse_attribute,
    "sparse initializer": sparse_initializer,
    "subgraph": subgraph,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with plain, linked and hidden neighbours of its files."""
    secrets, model = tmp_path / "secrets", tmp_path / "model"
    secrets.mkdir()
    (model / "weights").mkdir(parents=True)
    (secrets / "secret.bin").write_bytes(SECRET)
    (model / "plain.bin").write_bytes(SECRET)
    (model / "weights" / "plain.bin").write_bytes(SECRET)
    (model / "link.bin").symlink_to(secrets / "secret.bin")
    (model / "folder").symlink_to(secrets)
    os.link(secrets / "secret.bin", model / "hard.bin")
    os.mkfifo(model / "pipe")
    return model


LOCATIONS = {
    "../secrets/secret.bin": "which is outside the model's folder",
    "weights/../../secrets/secret.bin": "which is outside the model's folder",
    "/proc/self/environ": "which is outside the model's folder",
    "link.bin": "which is a symbolic link",
    "folder/secret.bin": "which is a symbolic link",
    "hard.bin": "which is a hard link (the file has 2 names)",
    "pipe": "which is no regular file",
    "weights": "which is no regular file",
    "plain.bin/x": "which is no regular file",
    "absent.bin": "which cannot be read (No such file or directory)",
    "*/_ORT_MEM_ADDR_/*": "which is an address in memory",
    "": "which is no file name",
}


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("place", PLACES)
def test_external_data_that_is_not_a_plain_file_of_the_model_is_refused(
    folder: Path, place: str, location: str
) -> None:
    path = onnx_models.save(folder / "model.onnx", PLACES[place](external(location)))

    with pytest.raises(ArtifactRefused) as refused:
        onnx_screen.screen(path)

    assert str(refused.value) == (
        f"{path} keeps tensors in '{location}', {LOCATIONS[location]}; save the model with its external data "
        "as plain files beside it"
    )


@pytest.mark.parametrize("location", ["plain.bin", "weights/plain.bin", "./plain.bin"])
@pytest.mark.parametrize("place", PLACES)
def test_plain_files_in_the_models_folder_are_found_and_allowed(folder: Path, place: str, location: str) -> None:
    path = onnx_models.save(folder / "model.onnx", PLACES[place](external(location)))

    assert location in onnx_screen.screen(path).locations


def test_a_function_and_training_information_are_looked_into(folder: Path) -> None:
    path = onnx_models.save(folder / "model.onnx", initializer(external("plain.bin")))
    model = onnx.ModelProto.FromString(path.read_bytes())
    model.functions.add(name="f").node.extend(constant(external("weights/plain.bin")).node)
    model.training_info.add().algorithm.CopyFrom(initializer(external("hard.bin")))
    path.write_bytes(model.SerializeToString())

    with pytest.raises(ArtifactRefused, match=r"keeps tensors in 'hard\.bin'"):
        onnx_screen.screen(path)


def test_a_tensor_written_in_two_halves_is_seen_whole(folder: Path) -> None:
    path = onnx_models.save(folder / "model.onnx", constant(external("plain.bin")))
    halves = external("plain.bin").SerializeToString(), external("hard.bin").SerializeToString()
    attribute = b"".join(b"\x2a" + bytes([len(half)]) + half for half in halves)  # field 5, twice: a parser merges
    node = b"\x2a" + bytes([len(attribute)]) + attribute
    body = b"\x0a" + bytes([len(node)]) + node
    path.write_bytes(b"\x3a" + bytes([len(body)]) + body)

    with pytest.raises(ArtifactRefused, match=r"keeps tensors in 'hard\.bin'"):
        onnx_screen.screen(path)


def test_a_loop_is_found_wherever_it_is_and_so_is_a_tensor_as_large_as_a_value_says(tmp_path: Path) -> None:
    def found(path: Path) -> tuple[bool, bool]:
        findings = onnx_screen.screen(path)
        return findings.loops, findings.grows

    assert found(onnx_models.endless(tmp_path / "endless.onnx")) == (True, False)
    assert found(onnx_models.deaf(tmp_path / "deaf.onnx")) == (False, True)
    assert found(onnx_models.linear(tmp_path / "linear.onnx")) == (False, False)


def test_a_model_cut_off_anywhere_is_refused_or_complete_to_its_last_field(tmp_path: Path) -> None:
    whole = onnx_models.linear(tmp_path / "model.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    accepted = []
    for length in range(1, len(whole)):
        cut.write_bytes(whole[:length])
        try:
            onnx_screen.screen(cut)
        except ArtifactRefused:
            continue
        accepted.append(length)

    graph_ends = len(whole) - len(onnx.ModelProto(opset_import=[helper.make_opsetid("", 17)]).SerializeToString())
    assert accepted == [graph_ends]


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"<html>not found</html>")

    with pytest.raises(ArtifactRefused) as refused:
        onnx_screen.screen(path)

    assert str(refused.value) == (
        f"{path} is no whole ONNX model (a field of unknown wire type 4 at byte 0 of 22); fetch or export it again"
    )


def test_every_place_where_onnx_can_hold_a_tensor_is_followed() -> None:
    reaches: dict[str, dict[int, str]] = {}

    def reaches_tensor(message: Any, seen: frozenset[str]) -> bool:
        return message.name == "TensorProto" or any(
            field.message_type is not None
            and field.message_type.name not in seen
            and reaches_tensor(field.message_type, seen | {message.name})
            for field in message.fields
        )

    def walk(message: Any) -> None:
        if message.name in reaches:
            return
        fields = [
            field
            for field in message.fields
            if field.message_type is not None and reaches_tensor(field.message_type, frozenset())
        ]
        reaches[message.name] = {field.number: field.message_type.name for field in fields}
        for field in fields:
            walk(field.message_type)

    walk(onnx.ModelProto.DESCRIPTOR)
    reaches["TensorProto"] = {13: "StringStringEntryProto"}

    assert reaches == onnx_screen._MESSAGES
