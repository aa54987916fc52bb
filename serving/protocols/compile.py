"""``python -m serving.protocols.compile``: ``inference.proto`` to the descriptor set beside it."""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "inference.proto"
DESCRIPTOR_SET = SOURCE.with_suffix(".binpb")


def compile_to(target: Path) -> None:
    """Writes the descriptor set of ``inference.proto``; RuntimeError when protoc refuses it."""
    from grpc_tools import protoc

    arguments = ["protoc", f"--proto_path={SOURCE.parent}", f"--descriptor_set_out={target}", str(SOURCE)]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc refused {SOURCE}; its message stands above")


if __name__ == "__main__":
    compile_to(DESCRIPTOR_SET)
    sys.stdout.write(f"{DESCRIPTOR_SET}\n")
