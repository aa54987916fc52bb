"""What Serve's proxies are given: the gRPC methods they take, and the address that their gRPC listens on.

Serve's gRPC proxy takes every address of the machine, and no option says otherwise. The one function by which it
takes a port is therefore replaced in the proxy's process, where Serve calls us before it listens
(``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``).
"""

from __future__ import annotations

import os
from typing import Any

import grpc

from serving.contract import GRPC_SERVICE, STREAM_METHOD, Env
from serving.rayserve.answering import METHODS


def add_methods(servicer: Any, server: Any) -> None:
    """Adds the service to a gRPC server; its messages stay the bytes they are, for replicas read them."""
    handlers: dict[str, Any] = {
        method: grpc.stream_stream_rpc_method_handler(getattr(servicer, method))
        if method == STREAM_METHOD
        else grpc.unary_unary_rpc_method_handler(getattr(servicer, method))
        for method in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(GRPC_SERVICE, handlers),))


def listen_where_told() -> list[Any]:
    """Has gRPC listen on ``PENSTOCK_HOST``; Serve asks for middlewares, of which there are none."""
    from ray.serve._private import default_impl

    host = os.environ[Env.HOST]

    def add_grpc_address(server: Any, address: str) -> None:
        port = address.rpartition(":")[2]
        server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    default_impl.add_grpc_address = add_grpc_address
    return []
