"""Does any request fail, or get a wrong answer, while models and processes come and go?

Local mode with its router and two replicas of a server with two workers each. Clients ask over six protocols, each
request with inputs of its own, and hold every answer against what the model makes of just these inputs. Meanwhile, one
after the other and again from the start: a model is swapped at both replicas, another one is unloaded and loaded, a
replica is told to end, one of its workers is killed, a whole replica is killed, and the revision is replaced.

What a router cannot save is not asked of it: calls that go to a replica directly pause while a replica may end, and
streams while one is killed, or told to end before the router was (a call is repeated at the other replica, half a
stream cannot be). They go on while a revision is replaced, where the router moves first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import tempfile

import uvloop

from benchmarks import origin
from benchmarks.endurance import run as endured

RESULT = pathlib.Path("benchmarks/results/endurance.json")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--result", type=pathlib.Path, default=RESULT)


def run(options: argparse.Namespace) -> int:
    """Endures, writes the result, and fails when anything went wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-endurance-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        outcome = runner.run(endured.endure(pathlib.Path(folder), options.requests))
    options.result.parent.mkdir(parents=True, exist_ok=True)
    options.result.write_text(json.dumps({**origin.described(), **outcome.document()}, indent=2) + "\n")
    print(json.dumps(outcome.document(), indent=2))
    return 0 if outcome.is_clean() else 1
