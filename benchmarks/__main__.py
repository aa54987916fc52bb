"""``python -m benchmarks QUESTION``: one command for each question; ``README.md`` lists them."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib
import sys
from collections.abc import Iterator, Sequence

from benchmarks import delivery, environments, rendering
from benchmarks.delivery import experiments

QUESTIONS = {
    "peers": "benchmarks.comparison",
    "render": "benchmarks.rendering",
    "latency": "benchmarks.latency",
    "overload": "benchmarks.overload",
    "recovery": "benchmarks.recovery",
    "soak": "benchmarks.soak",
    "endurance": "benchmarks.endurance",
    "telemetry": "benchmarks.telemetry",
    "gate": "benchmarks.gate",
    "delivery": "benchmarks.delivery",
    "variants": "benchmarks.variants",
    "search": "benchmarks.search",
    "engines": "benchmarks.engines",
    "experiments": "benchmarks.delivery.experiments",
    "live": "benchmarks.delivery.live",
    "router": "benchmarks.router",
}

_MEASURE_NOTHING = (rendering.run, delivery.run, experiments.run)
"""What others on this machine cannot disturb."""


def main(arguments: Sequence[str]) -> int:
    """Ask one question; 0 if it was answered and what was asked held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What measures speed.")
    commands = parser.add_subparsers(required=True, metavar="QUESTION")
    for name, module in QUESTIONS.items():
        question = importlib.import_module(module)
        about = (question.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=about, description=about)
        question.arguments(command)
        command.set_defaults(run=question.run)
    options = parser.parse_args(arguments)
    with _alone() if options.run not in _MEASURE_NOTHING else contextlib.nullcontext():
        return int(options.run(options))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Of two measurements at one time each would measure the other, so the second waits."""
    environments.cache().mkdir(parents=True, exist_ok=True)
    with (environments.cache() / "benchmark.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another measurement on this machine to end", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
