"""What every peer is given and computes with, so that only the servers around it differ."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Asked:
    """What a peer must serve, and where."""

    name: str
    path: Path
    dims: str
    """Shape of an input without its batch, as in ``3,224,224``."""
    http_port: int
    grpc_port: int
    batch: int
    """Most requests in one call of the engine; 1: no batching."""


def asked() -> Asked:
    """The command line of a peer's ``server.py``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("path", type=Path)
    parser.add_argument("--dims", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    return Asked(**vars(parser.parse_args()))


def session(path: Path | str) -> Any:
    """ONNX Runtime on one thread."""
    import onnxruntime  # what only starts a server from here need not pay for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
