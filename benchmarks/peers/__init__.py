"""Servers that Penstock is compared with.

A folder each: ``requirements.txt`` for an environment of its own, and ``server.py``, which is run with
``engine.asked``'s arguments in an empty folder and serves one model until it is told to end. All of them call ONNX
Runtime with one thread, through ``engine.session``. Nothing else is shared, and nothing is tuned but what the
peer's file says.
"""

from pathlib import Path

PEERS = Path(__file__).parent
