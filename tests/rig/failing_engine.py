"""An engine that fails every so many requests: ``python -m tests.rig.failing_engine NAME EVERY`` (0: none).

It speaks as much of V2 as a rollout needs, and names itself in the header ``engine``.
"""

from __future__ import annotations

import http.server
import itertools
import os
import sys

from serving.contract import Env


def serve(name: str, every: int) -> None:
    """Answer on the port that the environment says, until killed."""
    numbers = itertools.count(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self._answer(500 if every and next(numbers) % every == 0 else 200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("engine", name)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    address = os.environ[Env.HOST], int(os.environ[Env.HTTP_PORT])
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
