"""Which mode a command line means, and that the local client and the local API speak the same language."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import pathlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from operators.api.errors import Conflict, InvalidObject, NotFound, OperatorError, Unreachable
from operators.api.plan import Key
from operators.cli import client, datadir, kinds, local_api
from operators.cli.client import LocalClient, NothingRuns, Target
from operators.cli.cluster import ClusterClient
from operators.store.sqlite import SqliteStore

MODEL = kinds.of("Model")
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: one, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: me, user: {token: secret}}]
contexts:
  - {name: first, context: {cluster: one, user: me}}
  - {name: second, context: {cluster: one, user: me, namespace: team}}
current-context: first
"""


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config").write_text(KUBECONFIG)
    return tmp_path


def up(folder: pathlib.Path, pid: int) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    datadir.announce(folder, datadir.Running(pid, "http://127.0.0.1:1", "token", "http://127.0.0.1:2", "127.0.0.1:3"))
    return folder


def test_a_running_up_is_meant_where_nothing_else_is_named(home: pathlib.Path) -> None:
    folder = up(home / "data", os.getpid())
    chosen = client.choose(Target(folder), {"KUBECONFIG": str(home / "config")})
    assert isinstance(chosen, LocalClient)
    assert chosen.running.pid == os.getpid()


@pytest.mark.parametrize(
    ("arguments", "namespace"),
    [
        ({"cluster": True}, "default"),
        ({"context": "second"}, "team"),
        ({"namespace": "other"}, "other"),
        ({"context": "second", "namespace": "other"}, "other"),
    ],
)
def test_a_cluster_is_meant_where_one_is_named(home: pathlib.Path, arguments: dict[str, Any], namespace: str) -> None:
    folder = up(home / "data", os.getpid())
    chosen = client.choose(Target(folder, **arguments), {"KUBECONFIG": str(home / "config")})
    assert isinstance(chosen, ClusterClient)
    assert (chosen.api.configuration.host, chosen.namespace) == ("http://127.0.0.1:1", namespace)


def test_a_cluster_that_is_set_up_is_meant_where_no_up_runs(home: pathlib.Path) -> None:
    (home / ".kube").mkdir()
    (home / ".kube/config").write_text(KUBECONFIG)
    assert isinstance(client.choose(Target(home / "data"), {}), ClusterClient)


def test_with_neither_the_error_says_how_to_get_one(home: pathlib.Path) -> None:
    with pytest.raises(OperatorError) as raised:
        client.choose(Target(home / "data"), {})
    assert str(raised.value) == (
        f"no `penstock up` runs on {home}/data, and no cluster is set up: "
        "start `penstock up`, name the folder of one with --data-dir, or a cluster with --kubeconfig"
    )


def test_a_namespace_without_a_cluster_is_told_how_local_mode_names_one(home: pathlib.Path) -> None:
    with pytest.raises(OperatorError) as raised:
        client.choose(Target(up(home / "data", os.getpid()), namespace="team"), {})
    assert str(raised.value) == (
        "no cluster is set up: name a kubeconfig with --kubeconfig or KUBECONFIG; "
        "with `penstock up`, write NAMESPACE/NAME instead of --namespace"
    )


def test_what_a_crashed_up_left_running_is_told(home: pathlib.Path) -> None:
    (home / "data/children").mkdir(parents=True)
    (home / "data/children/digits.json").write_text(json.dumps({"pid": os.getpid()}))
    with pytest.raises(OperatorError) as raised:
        client.choose(Target(home / "data"), {})
    assert str(raised.value) == (
        f"no `penstock up` runs on {home}/data, but processes of an earlier one do (1): "
        "start `penstock up` again, which goes on with them, or end them with `penstock down`"
    )


def test_a_cluster_that_happens_to_be_set_up_is_not_meant_where_local_mode_was_named_or_crashed(
    home: pathlib.Path,
) -> None:
    (home / ".kube").mkdir()
    (home / ".kube/config").write_text(KUBECONFIG)
    with pytest.raises(NothingRuns):
        client.choose(Target(home / "data", local=True), {})
    (home / "data/children").mkdir(parents=True)
    (home / "data/children/digits.json").write_text(json.dumps({"pid": os.getpid()}))
    with pytest.raises(NothingRuns):
        client.choose(Target(home / "data"), {})


def test_a_plugin_of_kubectl_means_a_cluster_and_nothing_else(home: pathlib.Path) -> None:
    folder = up(home / "data", os.getpid())
    with pytest.raises(OperatorError) as raised:
        client.choose(Target(folder, cluster=True), {})
    assert str(raised.value) == "no cluster is set up: name a kubeconfig with --kubeconfig or KUBECONFIG"


def test_an_unreadable_kubeconfig_is_named(home: pathlib.Path) -> None:
    with pytest.raises(OperatorError, match=rf"kubeconfig {home}/none: .*; name another with --kubeconfig"):
        client.choose(Target(home / "data", kubeconfig=f"{home}/none"), {})


def test_a_cluster_that_does_not_answer_is_named(home: pathlib.Path) -> None:
    chosen = client.choose(Target(home / "data", kubeconfig=f"{home}/config"), {})
    with pytest.raises(Unreachable, match=r"the API server at http://127\.0\.0\.1:1 does not answer: "):
        chosen.list(MODEL, "default")


def test_an_up_that_does_not_answer_is_named(home: pathlib.Path) -> None:
    chosen = client.choose(Target(up(home / "data", os.getpid())), {})
    with pytest.raises(Unreachable, match=rf"`penstock up` \(process {os.getpid()}\) does not answer at"):
        chosen.list(MODEL, None)


async def _logs(key: Key, follow: bool) -> AsyncIterator[bytes]:
    yield f"{key} follow={follow}\n".encode()


@pytest.fixture
def local(tmp_path: pathlib.Path) -> Iterator[LocalClient]:
    """A client of the local API, served for real from a thread of its own."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        clock = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        store = SqliteStore.open(tmp_path / "objects.db", lambda: clock, lambda key: None)
        app = local_api.app(store, _logs, "secret")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        listener.listen()
        task = asyncio.create_task(server.serve(sockets=[listener]))
        ready.set()
        await asyncio.to_thread(done.wait)
        server.should_exit = True
        await task
        store.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    yield LocalClient(datadir.Running(os.getpid(), url, "secret", "", ""))
    done.set()
    thread.join()


def model(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "digits", "namespace": "default"},
        "spec": {"source": {"uri": "s3://models/m.onnx"}} | spec,
    }


def test_applying_getting_listing_and_deleting(local: LocalClient) -> None:
    outcomes = [client.apply(local, data) for data in (model(), model(), model(replicas=2))]
    assert outcomes == ["created", "unchanged", "configured"]
    got = local.get(MODEL, "default", "digits")
    assert (got["kind"], got["metadata"]["generation"], got["spec"]["replicas"]) == ("Model", 2, 2)
    assert [local.list(MODEL, namespace) for namespace in (None, "default", "other")] == [[got], [got], []]
    local.delete(MODEL, "default", "digits")
    assert local.list(MODEL, None) == []


def test_a_merge_changes_what_it_names_and_removes_what_is_null(local: LocalClient) -> None:
    client.apply(local, model(rollout={"steps": [{"weight": 5}], "paused": True}))
    change = {"metadata": {"annotations": {"a": "b", "c": None}}, "spec": {"rollout": {"paused": None}, "replicas": 2}}
    local.merge(MODEL, "default", "digits", change)
    got = local.get(MODEL, "default", "digits")
    assert got["metadata"]["annotations"] == {"a": "b"}
    assert (got["spec"]["replicas"], got["spec"]["rollout"]["paused"]) == (2, False)
    assert [step["weight"] for step in got["spec"]["rollout"]["steps"]] == [5]


def test_a_command_outlives_an_apply_that_does_not_mention_it(local: LocalClient) -> None:
    data = model(rollout={"steps": [{"weight": 5}]})
    data["metadata"]["annotations"] = {"team": "a"}
    client.apply(local, data)
    for value, expected in (
        ("2026-01-02T03:00:00Z", {"team": "b", "penstock.dev/paused": "2026-01-02T03:00:00Z"}),
        (None, {"team": "b"}),
    ):
        change = {"metadata": {"annotations": {"penstock.dev/paused": value, "penstock.dev/other": "c"}}}
        local.merge(MODEL, "default", "digits", change)
        data["metadata"]["annotations"] = {"team": "b"}
        client.apply(local, data)
        assert local.get(MODEL, "default", "digits")["metadata"]["annotations"] == expected
    assert client.apply(local, data) == "unchanged"


def test_a_runtime_has_no_namespace(local: LocalClient) -> None:
    data = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "triton"},
        "spec": {"image": "triton:1", "formats": ["onnx"]},
    }
    assert [client.apply(local, data), client.apply(local, data)] == ["created", "unchanged"]
    assert "namespace" not in local.get(kinds.of("ServingRuntime"), "", "triton")["metadata"]


def test_logs_come_as_they_are_written(local: LocalClient) -> None:
    client.apply(local, model())
    assert "".join(local.logs("default", "digits", True)) == "Model default/digits follow=True\n"


def test_refusals_are_the_same_errors_as_in_process(local: LocalClient) -> None:
    stale = model() | {"metadata": {"name": "digits", "namespace": "default", "resourceVersion": "9"}}
    with pytest.raises(InvalidObject, match=r"Model 'digits': spec\.replica: unknown field"):
        local.apply(MODEL, model(replica=1))
    with pytest.raises(Conflict, match="resourceVersion none: it does not exist, not 9"):
        local.apply(MODEL, stale)
    with pytest.raises(NotFound, match="Model default/digits does not exist"):
        local.get(MODEL, "default", "digits")
    with pytest.raises(NotFound, match="Model default/digits does not exist"):
        list(local.logs("default", "digits", False))
    with pytest.raises(NotFound, match=r"^ServingRuntime triton does not exist; `penstock get servingruntimes` lists"):
        local.delete(kinds.of("ServingRuntime"), "default", "triton")


def test_nobody_without_the_token_is_answered(local: LocalClient) -> None:
    stranger = LocalClient(datadir.Running(os.getpid(), local.running.url, "guess", "", ""))
    with pytest.raises(Unreachable, match=r"the token of up\.json is needed in the header Authorization"):
        stranger.list(MODEL, None)
    assert httpx.get(f"{local.running.url}/healthz").json() == {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "message": "the token of up.json is needed in the header Authorization",
        "reason": "Unauthorized",
        "code": 401,
    }
