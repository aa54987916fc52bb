"""One search: atheris calls one target with ever new bytes. ``python -m tests.fuzz`` starts it, one process a target.

``python -m tests.fuzz.search TARGET [FILE…] -- [LIBFUZZER OPTION…]``; with files it only calls the target with them.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["serving", "uvicorn.protocols"]):
    from tests.fuzz import connection, mutation, parsers

MAX_S = 1.0
MAX_GROWTH_KIB = 64 * 1024
_WARM_UP = 2000
_EVERY_S = 10.0


class Watched:
    """A target held against its limits: CPU seconds of one run, and memory beyond what the first runs needed."""

    def __init__(self, target: parsers.Target) -> None:
        self._target = target
        self._runs = 0
        self._baseline_kib = 0
        self._told = time.monotonic()

    def __call__(self, data: bytes) -> None:
        """One run."""
        begun = time.process_time()
        self._target(data)
        took = time.process_time() - begun
        assert took < MAX_S, f"took {took:.2f} s of CPU for {len(data)} bytes"
        self._runs += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if self._runs <= _WARM_UP:
            self._baseline_kib = peak
        grown = peak - self._baseline_kib
        assert grown < MAX_GROWTH_KIB, f"memory grew by {grown} KiB after {self._runs} runs"
        if time.monotonic() - self._told > _EVERY_S:
            self._told = time.monotonic()
            sys.stderr.write(f"STATE runs={self._runs} grown_kib={grown}\n")


def main(argv: list[str]) -> None:
    """Searches, or calls the target with the files that were given."""
    name = argv[1]
    target = connection.Connection() if name == "connection" else parsers.TARGETS[name]
    custom = {"custom_mutator": mutation.MUTATORS[name]} if name in mutation.MUTATORS else {}
    if files := [argument for argument in argv[2:] if Path(argument).is_file()]:
        for file in files:
            target(Path(file).read_bytes())
            print(f"{file}: as it should be")
        return
    atheris.Setup([argv[0], *argv[2:]], Watched(target), **custom)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
