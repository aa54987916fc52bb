"""What goes wrong with a next revision is told in full, what served goes on serving, and the repair brings the next.

All situations run beside each other, each with a Model of its own, because a real kubelet takes its time for each. A
client asks every Model all the while and never asks twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from serving.contract import REVISION_HEADER
from tests.cluster import tenancy
from tests.cluster.tenancy import Tenant
from tests.rig.cluster import Cluster
from tests.rig.installation import HTTP_PORT, Installation
from tests.rig.load import DIGITS
from tests.rig.node.layout import Node

Object = dict[str, Any]

SERVE = f"penstock-serve:{importlib.metadata.version('penstock')}"
QUESTION = (DIGITS / "seven.json").read_bytes()
CRASHES_LATER = """
import os, pathlib, subprocess, sys, time
been_here = pathlib.Path("/tmp/been-here")
if been_here.exists():
    subprocess.Popen([sys.executable, "-m", "serving", "serve", "/mnt/models"])
    time.sleep(6)
been_here.touch()
os._exit(139)
"""
"""From its second start on it answers for a moment before it crashes, as a server with a broken session might."""
AGAIN = "it is started again, `kubectl -n {namespace} logs {pod} -c engine --previous` says more"


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A change of a good Model that cannot come up. ``message`` is a pattern of what is told of it, whole."""

    reason: str
    message: str
    spec: Object = dataclasses.field(default_factory=dict)
    runtime: Object | None = None
    quota: bool = False
    """Its Model is in a namespace whose quota has no room for a second pod."""


TROUBLES: Mapping[str, Trouble] = {
    "no-image": Trouble(
        "ImagePullFailed",
        r"pod {pod}: container engine: image 127\.0\.0\.1:1/nope:1 cannot be pulled: [^;]*connection refused; "
        r"correct its "
        r"name, push it, or add its registry's pull secret to the namespace's default service account",
        runtime={"image": "127.0.0.1:1/nope:1"},
    ),
    "bad-name": Trouble(
        "ImagePullFailed",
        r"pod {pod}: container engine: image No:1 cannot be pulled: [^;]*repository name [^;]*must be "
        r"lowercase; correct "
        r"its name, push it, or add its registry's pull secret to the namespace's default service account",
        runtime={"image": "No:1"},
    ),
    "crashing": Trouble(
        "Crashing",
        "pod {pod}: container engine ended with exit code 1: the licence is over; " + AGAIN,
        runtime={"image": SERVE, "command": ["python", "-c", "raise SystemExit('the licence is over')"]},
    ),
    "crashing-later": Trouble(
        "Crashing",
        # Its last words are the server's, where that came to say any.
        r"pod {pod}: container engine ended with exit code 139 \(SIGSEGV\)"
        r"(: INFO serving\.server: serving crashing-later)?; " + AGAIN,
        runtime={
            "image": SERVE,
            "command": ["python", "-c", CRASHES_LATER],
        },
    ),
    "no-program": Trouble(
        "Crashing",
        'pod {pod}: container engine cannot be started: exec: "/bin/nope": stat /bin/nope: no such file or directory: '
        "unknown; correct command and args of the ServingRuntime",
        runtime={"image": SERVE, "command": ["/bin/nope"]},
    ),
    "out-of-memory": Trouble(
        "OutOfMemory",
        r"pod {pod}: container engine needs more memory than its limit of 32Mi \(OOMKilled\); raise "
        r"spec\.resources\.limits\.memory",
        {"resources": tenancy.SMALL | {"limits": {"memory": "32Mi"}}},
    ),
    "too-large": Trouble(
        "Unschedulable",
        r"pod {pod} fits no node: 0/1 nodes are available: 1 Insufficient cpu; lower "
        r"spec\.resources\.requests \(cpu\), "
        r"free some, or add a node that has it",
        {"resources": {"requests": {"cpu": "1000"}}},
    ),
    "no-claim": Trouble(
        "Unschedulable",
        r'pod {pod} fits no node: 0/1 nodes are available: persistentvolumeclaim "nowhere" not found; create '
        r"or bind the "
        r"claim, or correct source\.uri",
        {"source": {"uri": "pvc://nowhere/next.onnx"}},
    ),
    "no-storage": Trouble(
        "FetchFailed",
        r"pod {pod}: container fetch ended with exit code 5: https://127\.0\.0\.1:1/next\.onnx could not be "
        r"copied: .*; it "
        r"is tried again, `kubectl -n {namespace} logs {pod} -c fetch --previous` says more",
        {"source": {"uri": "https://127.0.0.1:1/next.onnx"}},
    ),
    "over-quota": Trouble(
        "QuotaExceeded",
        "pods cannot be created: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1; raise "
        "ResourceQuota small, or lower what the namespace uses",
        quota=True,
    ),
}


class Client:
    """Asks each of ``models`` (NAMESPACE/NAME) in turn, over and over, each request once."""

    def __init__(self, base: str, models: Sequence[str]) -> None:
        self._base = base
        self._answers: dict[str, list[str]] = {model: [] for model in models}
        self._failures: dict[str, list[str]] = {model: [] for model in models}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def answered(self, model: str) -> list[str]:
        """Revisions that have answered, in this order; AssertionError if a request has failed."""
        assert self._failures[model] == []
        return list(dict.fromkeys(self._answers[model]))

    def has_answered(self, model: str, revision: str) -> bool:
        return revision in self.answered(model)

    def _run(self) -> None:
        with httpx.Client(base_url=self._base, timeout=10) as client:
            while not self._over.is_set():
                for model in self._answers:
                    try:
                        answer = client.post(f"/{model}/v2/models/{model.split('/')[1]}/infer", content=QUESTION)
                    except httpx.HTTPError as error:
                        self._failures[model].append(repr(error))
                        continue
                    if answer.status_code != 200:
                        self._failures[model].append(f"{answer.status_code} {answer.text}")
                    self._answers[model].append(answer.headers.get(REVISION_HEADER, ""))
                self._over.wait(0.1)


@pytest.fixture(scope="module")
def store(node: Node, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Both revisions of the digits model."""
    return tenancy.fill(tmp_path_factory.mktemp("store"))


@dataclasses.dataclass(frozen=True)
class Scene:
    """Every Model served its first revision when it was told to serve what cannot come up."""

    tenants: Mapping[str, Tenant]
    """By Model."""
    serving: Mapping[str, str]
    """The first revision, by Model."""
    client: Client


@pytest.fixture(scope="module")
def scene(cluster: Cluster, node: Node, penstock: Installation, store: pathlib.Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        wide, narrow = (stack.enter_context(tenancy.tenant(cluster, store)) for _ in range(2))
        tenants = {name: narrow if trouble.quota else wide for name, trouble in TROUBLES.items()}
        for name, tenant in tenants.items():
            tenant.wish(name, "first")
        serving = {name: tenant.until_served(name) for name, tenant in tenants.items()}
        narrow.limit(pods=1)
        models = [f"{tenant.namespace}/{name}" for name, tenant in tenants.items()]
        client = stack.enter_context(Client(f"http://{node.address}:{HTTP_PORT}", models))
        for name, trouble in TROUBLES.items():
            spec = dict(trouble.spec)
            if trouble.runtime is not None:
                spec["runtime"] = runtime = f"{name}-{tenants[name].namespace}"
                tenants[name].apply(serving_runtime(runtime, trouble.runtime))
                stack.callback(cluster.kubectl, "delete", "servingruntime", runtime)
            tenants[name].wish(name, "next", **spec)
        yield Scene(tenants, serving, client)


def serving_runtime(name: str, spec: Object) -> Object:
    spec = {"formats": ["onnx"], "protocols": ["v2"], **spec}
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_cannot_come_up_is_told_in_full_beside_what_goes_on_serving(scene: Scene, name: str) -> None:
    trouble, tenant, old = TROUBLES[name], scene.tenants[name], scene.serving[name]
    tenant.cluster.until("there is a next revision", lambda: tenant.revisions(name)[0] != old)
    new = tenant.revisions(name)[0]
    if "{pod}" in trouble.message:
        tenant.cluster.until("it has a pod", lambda: tenant.pod(name, new) != "")
    told = trouble.message.format(namespace=tenant.namespace, pod=tenant.pod(name, new))
    slow = "(is starting|does not start: not ready after 120 s, and still being tried)"
    rollout = rf"model {name}: revision {new} \(default\) {slow}: {told}"
    tenant.until_told(name, "RolloutComplete", "False", trouble.reason, rollout)
    tenant.until_told(name, "Ready", "True", "ServingPrevious", f"revision {old} goes on serving; {rollout}")
    assert tenant.line(name)[:5] == [name, "True", "ServingPrevious", "default", old]
    # One that crashes later answers for a moment, and is counted then; the others never are.
    if name == "crashing-later":
        tenant.cluster.until("the one that serves is counted alone", lambda: tenant.line(name)[5] == "1")
    else:
        assert tenant.line(name)[5] == "1"
    assert scene.client.answered(f"{tenant.namespace}/{name}") == [old]


def test_the_repair_of_each_brings_the_next_and_no_request_has_failed(scene: Scene) -> None:
    for name, tenant in scene.tenants.items():
        if TROUBLES[name].quota:
            tenant.limit(pods=3)
        else:
            tenant.wish(name, "next")
    for name, tenant in scene.tenants.items():
        model, old, new = f"{tenant.namespace}/{name}", scene.serving[name], tenant.until_served(name)
        tenant.cluster.until("it answers", functools.partial(scene.client.has_answered, model, new))
        assert scene.client.answered(model) == [old, new]


def test_a_model_whose_only_pod_has_gone_and_cannot_be_made_again_is_not_ready_and_comes_back(
    cluster: Cluster, penstock: Installation, store: pathlib.Path
) -> None:
    with tenancy.tenant(cluster, store) as tenant:
        tenant.wish("digits", "first")
        revision = tenant.until_served("digits")
        tenant.limit(pods=0)
        cluster.kubectl("-n", tenant.namespace, "delete", "pod", tenant.pod("digits", revision), "--wait=false")
        message = (
            f"model digits: no replica of revision {revision} answers: pods cannot be created: exceeded quota: small, "
            "requested: pods=1, used: pods=., limited: pods=0; raise ResourceQuota small, or lower what the "
            "namespace uses"
        )
        tenant.until_told("digits", "Ready", "False", "QuotaExceeded", message)
        assert tenant.line("digits")[:6] == ["digits", "False", "QuotaExceeded", "default", revision, "0"]
        tenant.limit(pods=1)
        assert tenant.until_served("digits") == revision
