"""Search every parser for a time in total: ``python -m tests.fuzz --seconds 3600 [TARGET…]``.

Stops at the first input that breaks a promise, and prints it with the command that repeats it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus, parsers

NAMES = ("connection", *parsers.TARGETS)
_SHARES = {"connection": 4, "v2_json": 2, "v2_binary": 2, "v1_json": 2}
"""Larger languages get more of the time."""
KEPT = Path(".cache/fuzz")


def main(arguments: list[str]) -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Search parsers for what breaks them.")
    parser.add_argument("--seconds", type=int, default=600, help="time in total (default: %(default)s)")
    parser.add_argument("target", nargs="*", help=f"of {', '.join(NAMES)}; all without any")
    options = parser.parse_args(arguments)
    names = options.target or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no target is named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    shares = {name: _SHARES.get(name, 1) for name in names}
    for name in names:
        if not _searched(name, max(1, options.seconds * shares[name] // sum(shares.values()))):
            return 1
    return 0


def _searched(name: str, seconds: int) -> bool:
    """Whether a search of one target ended by time alone. What it led to stays in KEPT for the next one."""
    grown = KEPT / name
    grown.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-") as folder:
        begin, broken = Path(folder, "seeds"), Path(folder, "broken")
        begin.mkdir()
        for number, seed in enumerate(corpus.seeds(name)):
            (begin / f"{number:03}").write_bytes(seed)
        words = Path(folder, "words")
        words.write_text("\n".join(map(_quoted, corpus.words(name))))
        # -timeout ends what never ends; a run's own CPU time is held against its limit inside.
        command = (sys.executable, "-m", "tests.fuzz.search", name, f"-max_total_time={seconds}", "-timeout=60",
                   f"-dict={words}", f"-artifact_prefix={broken}-", "-max_len=16384", "-rss_limit_mb=2048",
                   "-print_final_stats=1", "-verbosity=1", str(grown), str(begin))  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        runs, rss = (_last(rf"{key}:\s+(\d+)", done.stderr) for key in ("number_of_executed_units", "peak_rss_mb"))
        grew = _last(r"grown_kib=(\d+)", done.stderr)
        print(f"{name}: {seconds} s, {runs} runs, {grew} KiB grown, peak {rss} MiB, "
              f"{len(list(grown.iterdir()))} inputs led somewhere new", flush=True)  # fmt: skip
        if done.returncode == 0:
            return True
        sys.stderr.write("\n".join(done.stderr.splitlines()[-60:]) + "\n")
        for file in Path(folder).glob("broken-*"):
            kept = KEPT / f"{name}-{file.name.removeprefix('broken-')}"
            shutil.copyfile(file, kept)
            print(f"{name} breaks on {kept.read_bytes()!r}")
            print(f"repeat it: {sys.executable} -m tests.fuzz.search {name} {kept}")
        return False


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return found[-1] if found else "?"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
