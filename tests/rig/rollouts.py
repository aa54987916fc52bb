"""Rollouts under steady load over both protocols, played wherever there is a ``Place`` for them."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import yaml

from tests.rig import failing_engine, installation, revisions
from tests.rig.cluster import Cluster
from tests.rig.installation import GRPC_PORT, HTTP_PORT, STORE
from tests.rig.local_mode import Local
from tests.rig.revisions import Asking
from tests.rig.waiting import until

Object = dict[str, Any]

MODEL = "subject"
KNOWN = 2000
"""Requests before the next revision is wished for."""
DEADLINE_S = 240.0


class Place(Protocol):
    """Where the Model lives: a laptop, or a namespace of a cluster."""

    http: str
    grpc: str
    """HOST:PORT of the router."""
    namespace: str
    folder: pathlib.Path
    image: str
    """One with Penstock in it, for engines; not needed on a laptop."""

    def apply(self, file: pathlib.Path) -> None:
        """What ``penstock apply`` does there."""

    def model(self) -> Object:
        """The object as it is."""


class Laptop:
    """``penstock up``."""

    namespace = "default"
    image = "none"

    def __init__(self, local: Local, folder: pathlib.Path) -> None:
        self.http, self.grpc = f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}"
        self.folder = folder
        self._local = local
        local.up()

    def apply(self, file: pathlib.Path) -> None:
        code, said, error = self._local("apply", "-f", str(file))
        assert code == 0, said + error

    def model(self) -> Object:
        return self._local.model(MODEL)


class Namespace:
    """One of a cluster of the rig, with Penstock installed."""

    def __init__(self, cluster: Cluster, namespace: str, folder: pathlib.Path) -> None:
        node = cluster.node
        assert node is not None, "its router and its S3 server are reached at the node's own address"
        self.http, self.grpc = f"{node.address}:{HTTP_PORT}", f"{node.address}:{GRPC_PORT}"
        self.namespace, self.folder = namespace, folder
        self.image = installation.archives(print)["penstock-serve"].reference
        self._cluster = cluster
        self._environment = {**os.environ, **node.buckets.environment}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "penstock-storage"}}
        cluster.apply({**secret, "stringData": dict(node.buckets.environment)}, namespace=namespace)

    def apply(self, file: pathlib.Path) -> None:
        where = (f"--kubeconfig={self._cluster.kubeconfig}", f"--namespace={self.namespace}")
        command = [sys.executable, "-m", "operators.cli.main", "apply", "-f", str(file), "--store", STORE, *where]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def model(self) -> dict[str, Any]:
        return self._cluster.get("model", MODEL, namespace=self.namespace)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """From one revision to the next. A revision is an artifact, or an engine: its name, EVERY and MS."""

    rollout: Mapping[str, Any]
    after: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    engines: tuple[tuple[str, int, float], tuple[str, int, float]] | None = None
    rate: float = 200.0
    """Requests a second."""
    lasts_s: float = 240.0
    """For how long the end is waited for at most."""
    published: str = "detectionS"
    """Where in ``.status.rollout`` it says how soon it is found."""


HELD = [{"weight": 5, "for": "1h"}]
GOOD = Scenario(
    {"steps": [{"weight": 20, "for": "10s"}, {"weight": 50, "for": "10s"}], "analysis": {}}, {"name": "another"}
)
FAILS = Scenario({"steps": HELD, "analysis": {}}, {"fails": True})
"""One of twenty requests, of either protocol."""
SLOWER = Scenario(
    {"steps": HELD, "analysis": {"maxLatencyIncrease": {"ratio": 1.2}}},
    engines=(("quick", 0, 20), ("slower", 0, 25)),
    published="latencyDetectionS",
)
"""By a quarter. Where others keep the machine busy, all are late, and the test has no bound: it is a benchmark's."""


def equal(seconds: int, rate: float) -> Scenario:
    """Another revision that does the same, half of the traffic for so long."""
    latency = {"ratio": 1.3}
    rollout = {
        "steps": [{"weight": 50, "for": f"{seconds}s"}],
        "analysis": {"maxLatencyIncrease": latency, "deadline": "1m", "onInconclusive": "promote"},
    }
    return Scenario(rollout, {"name": "another"}, rate=rate, lasts_s=seconds + 240)


@dataclasses.dataclass(frozen=True)
class Played:
    """How it ended."""

    rollout: Object
    """``.status.rollout``."""
    published_s: float
    """The detection time as it was told last; infinite where it never was."""
    exposure: float
    """The candidate's share of the requests while it got any, in [0, 1]."""
    had_traffic_s: float
    """For how long that was."""
    asking: Asking


async def play(place: Place, scenario: Scenario) -> Played:
    """Let the first revision serve under load, wish for the next one, and see how that ends."""
    engine_before, engine_after = scenario.engines or (None, None)
    await _wish(place, scenario, {}, engine_before)
    await _until("the first revision serves", lambda: _serves(place))
    asking = Asking(place.http, place.grpc, f"{place.namespace}/{MODEL}", scenario.rate)
    ended = asyncio.Event()
    running = asyncio.create_task(asking.run(ended.is_set))
    try:
        await _until(f"{KNOWN} requests are sent", lambda: asking.sent >= KNOWN)
        await _wish(place, scenario, scenario.after, engine_after)
        told: list[Object] = []

        def is_over() -> bool:
            rollout: Object = place.model()["status"].get("rollout") or {"state": ""}
            told.append(rollout)
            return rollout["state"] in ("Promoted", "RolledBack")

        await _until("the rollout is over", is_over, scenario.lasts_s)
    finally:
        ended.set()
        await running
    rollout = told[-1]
    first, last = asking.met.get(rollout["revision"], (None, None))
    share, had_s = 0.0, 0.0
    if first is not None and last is not None:
        share, had_s = asking.of(rollout["revision"]) / (last.total - first.total + 1), last.at - first.at
    published = [one[scenario.published] for one in told if one.get(scenario.published)]
    return Played(rollout, published[-1] if published else math.inf, share, had_s, asking)


def holds(played: Played, state: str, why: str) -> None:
    """It ended in ``state`` for ``why``, and clients met only errors of the model itself."""
    rollout, asking = played.rollout, played.asking
    assert (rollout["state"], why in rollout["message"]) == (state, True), rollout["message"]
    assert asking.failures == []
    assert asking.refused.keys() <= {rollout["revision"]}
    if state == "RolledBack":
        assert rollout["against"]["e"] >= rollout["against"]["bound"]
        assert 0 < played.exposure <= rollout["target"] / 10_000 + 0.02
        assert played.published_s < math.inf, "how soon it is found was never published"


async def _wish(
    place: Place, scenario: Scenario, artifact: Mapping[str, Any], engine: tuple[str, int, float] | None
) -> None:
    spec: Object = {"source": {"uri": revisions.write(place.folder / "model.onnx", **artifact)}}
    if engine is not None:
        spec["runtime"] = name = f"{engine[0]}-{place.namespace}"
        await _apply(place, "ServingRuntime", name, _runtime(place, engine))
    spec["rollout"] = dict(scenario.rollout)
    await _apply(place, "Model", MODEL, spec)


def _runtime(place: Place, engine: tuple[str, int, float]) -> Object:
    script = pathlib.Path(failing_engine.__file__).read_text()
    command = ["python3", "-c", script, *map(str, engine)]
    local = {"command": [sys.executable, *command[1:]]}
    return {
        "image": place.image,
        "command": command,
        "local": local,
        "formats": ["onnx"],
        "protocols": ["v2", "grpc-v2"],
    }


async def _apply(place: Place, kind: str, name: str, spec: Object) -> None:
    named = {"apiVersion": "penstock.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    file = place.folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(named))
    await asyncio.to_thread(place.apply, file)


def _serves(place: Place) -> bool:
    found = place.model()
    status = found.get("status", {})
    true = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
    current: bool = status.get("observedGeneration") == found["metadata"]["generation"]
    return current and {"Ready", "RolloutComplete"} <= true


async def _until(what: str, holds: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    async def does() -> bool:
        return await asyncio.to_thread(holds)

    await until(what, does, deadline_s)
