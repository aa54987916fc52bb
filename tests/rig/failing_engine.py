"""An engine that fails every so many requests or takes its time over each, over REST and gRPC.

``python -m tests.rig.failing_engine NAME EVERY [MS]``: the request that fails is every EVERYth (0: none), and answers
wait for about MS milliseconds without working, so that they are late whatever else the machine does.

It speaks as much of V2 as a rollout needs, and names itself in the header ``engine``.
"""

from __future__ import annotations

import concurrent.futures
import http.server
import itertools
import os
import random
import sys
import threading
from typing import Any

import grpc

from serving.contract import GRPC_SERVICE, Env

_SPREAD = 0.3
"""Of the logarithm of the time that an answer takes."""


class Engine:
    """What both protocols do with a request."""

    def __init__(self, name: str, every: int, median_ms: float) -> None:
        self.name = name
        self._every, self._median_s = every, median_ms / 1000
        self._numbers, self._never = itertools.count(1), threading.Event()

    def infer(self) -> bool:
        """Take the time; whether it is answered well."""
        if self._median_s:
            self._never.wait(self._median_s * random.lognormvariate(0, _SPREAD))
        return not self._every or next(self._numbers) % self._every != 0


def rest(engine: Engine, address: tuple[str, int]) -> http.server.ThreadingHTTPServer:
    """V2 over HTTP."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(200)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self._answer(200 if engine.infer() else 500)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("engine", engine.name)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # five would have connections refused whenever the machine pauses

    return Server(address, Handler)


def over_grpc(engine: Engine, address: str) -> grpc.Server:
    """V2 over gRPC, each answer an empty message."""

    def infer(request: bytes, context: Any) -> bytes:
        if not engine.infer():
            context.abort(grpc.StatusCode.INTERNAL, "the engine failed")
        return b""

    def ready(request: bytes, context: Any) -> bytes:
        return bytes([8, 1])  # field 1, a bool: true

    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(does)
        for name, does in (("ModelInfer", infer), ("ModelReady", ready), ("ServerReady", ready), ("ServerLive", ready))
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(GRPC_SERVICE, handlers),))
    server.add_insecure_port(address)
    return server


def serve(name: str, every: int, median_ms: float) -> None:
    """Answer on the ports that the environment says, until killed."""
    engine, host = Engine(name, every, median_ms), os.environ[Env.HOST]
    server = over_grpc(engine, f"{host}:{os.environ[Env.GRPC_PORT]}")
    server.start()
    rest(engine, (host, int(os.environ[Env.HTTP_PORT]))).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
