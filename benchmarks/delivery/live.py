"""Does a rollout under real load end as the status had published it?

Runs ``penstock up``, or with ``--node`` the operator and the router on a Kubernetes node of its own, and sends requests
over REST and gRPC. *failing* fails a twentieth of them, *slower* takes a quarter longer, *equal* is the same model once
more with half of the traffic for ``--seconds``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import origin
from tests.rig import cluster, ports, rollouts
from tests.rig.local_mode import Local

_SCENARIOS = {"good": rollouts.GOOD, "failing": rollouts.FAILS, "slower": rollouts.SLOWER}
_WANTED = {"good": "Promoted", "failing": "RolledBack", "slower": "RolledBack", "equal": "Promoted"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--only", nargs="+", choices=_WANTED, default=[], help="some of them (default: all)")
    parser.add_argument("--seconds", type=int, default=3600, help="of equal revisions (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="of their requests, a second (default: %(default)s)")
    parser.add_argument("--node", action="store_true", help="in Kubernetes, as root (default: on this machine alone)")
    parser.add_argument(
        "--results", type=Path, help="folder for live.json, named by what was asked (default: not written)"
    )


def run(options: argparse.Namespace) -> int:
    """Play them one after the other; 0 if each ended as it should."""
    scenarios = _SCENARIOS | {"equal": rollouts.equal(options.seconds, options.rate)}
    names = options.only or list(_WANTED)
    with contextlib.ExitStack() as stack:
        installed = stack.enter_context(_node()) if options.node else None
        rows = [_row(name, scenarios[name], installed) for name in names]
    if options.results:
        results = {"question": (__doc__ or "").splitlines()[0], "origin": origin.described(), "rows": rows}
        options.results.mkdir(parents=True, exist_ok=True)
        stem = "-".join(["live", *(["node"] if options.node else []), *options.only])
        (options.results / f"{stem}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(row["asItShould"] for row in rows) else 1


@contextlib.contextmanager
def _node() -> Iterator[cluster.Cluster]:
    """A node with Penstock, until the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-live-") as folder,
        cluster.started("live", Path(folder), print) as found,
        cluster.with_penstock(found),
    ):
        yield found


@contextlib.contextmanager
def _place(installed: cluster.Cluster | None) -> Iterator[rollouts.Place]:
    """A new one for each."""
    with tempfile.TemporaryDirectory(prefix="penstock-live-") as folder:
        if installed is not None:
            with cluster.new_namespace(installed) as namespace:
                yield rollouts.Namespace(installed, namespace, Path(folder))
            return
        http, grpc = ports.free(2)
        local = Local(Path(folder), http, grpc)
        try:
            yield rollouts.Laptop(local, Path(folder))
        finally:
            for process in local.processes:
                process.terminate()
                process.wait(rollouts.DEADLINE_S)


def _row(name: str, scenario: rollouts.Scenario, installed: cluster.Cluster | None) -> dict[str, Any]:
    with _place(installed) as place:
        played = asyncio.run(rollouts.play(place, scenario))
    asking, rollout = played.asking, played.rollout
    ended = rollout["state"] == _WANTED[name]
    within = ended and (rollout["state"] == "Promoted" or played.had_traffic_s <= 1.5 * played.published_s)
    row = {
        "name": name,
        "ended": rollout["state"],
        "message": rollout["message"],
        "requests": asking.sent,
        "failedByTheModel": asking.refused.total(),
        "failedOtherwise": len(asking.failures),
        "weight": rollout["target"] / 10_000,
        "exposure": round(played.exposure, 4),
        "publishedDetectionS": played.published_s,
        "hadTrafficS": round(played.had_traffic_s, 1),
        "asItShould": within and not asking.failures,
    }
    print(f"{name:8} {row['ended']}, {row['requests']:,} requests, {row['failedOtherwise']} failed", end="")
    print(f"; {row['exposure']:.2%} of the traffic for {row['hadTrafficS']} s, published {played.published_s:g} s")
    print(f"         {row['message']}", flush=True)
    return row
