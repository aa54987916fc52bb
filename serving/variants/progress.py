"""How far a build is, for whoever asks on a port: one JSON object, the same at every path.

A builder in a cluster reaches no API, so what watches it asks. One connection at a time, and none for long: there is
one asker, and nothing it does may hold the build up.
"""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any

_TIMEOUT_S = 2.0


class Told:
    """Answers on ``port`` of every address, from a thread of its own, until the process ends."""

    def __init__(self, port: int) -> None:
        self._said = b"{}"
        self._server = http.server.HTTPServer(("", port), lambda *given: _Answer(self, *given))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.server_address[1]
        return port

    def tell(self, progress: dict[str, Any]) -> None:
        """Answer this from now on."""
        self._said = json.dumps(progress).encode()

    @property
    def said(self) -> bytes:
        """What it answers."""
        return self._said


class _Answer(http.server.BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S

    def __init__(self, told: Told, *given: Any) -> None:
        self._told = told
        super().__init__(*given)

    def do_GET(self) -> None:
        said = self._told.said
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *given: Any) -> None:
        """Nothing: it is asked every few seconds."""
