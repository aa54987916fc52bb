from pathlib import Path

from serving.protocols import compile as compiler


def test_the_descriptor_set_in_the_tree_is_that_of_the_proto_file(tmp_path: Path) -> None:
    compiler.compile_to(tmp_path / "inference.binpb")

    assert (tmp_path / "inference.binpb").read_bytes() == compiler.DESCRIPTOR_SET.read_bytes()
