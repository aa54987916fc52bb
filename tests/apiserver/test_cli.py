"""The verbs against a real API server are the verbs against ``penstock up``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from operators.api.errors import Conflict, InvalidObject, NotFound
from operators.cli import client, kinds
from operators.cli.cluster import ClusterClient
from tests.apiserver.conftest import Cluster, model

MODEL = kinds.of("Model")


@pytest.fixture
def api(cluster: Cluster) -> ClusterClient:
    return ClusterClient.open(str(cluster.plane.kubeconfig()), None, cluster.namespace)


@dataclasses.dataclass(frozen=True)
class Penstock:
    """``penstock`` for the test's namespace."""

    cluster: Cluster

    def __call__(self, *arguments: str, stdin: str = "", folder: pathlib.Path | None = None) -> tuple[int, str, str]:
        place = ["--kubeconfig", str(self.cluster.plane.kubeconfig()), "-n", self.cluster.namespace]
        command = [sys.executable, "-m", "operators.cli.main", *arguments, *place]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=folder)
        return done.returncode, done.stdout, done.stderr


def test_applying_getting_listing_and_deleting(api: ClusterClient) -> None:
    wanted = [model(), model(), model(replicas=2)]
    for data in wanted:
        data["metadata"]["namespace"] = api.namespace
    assert [client.apply(api, data) for data in wanted] == ["created", "unchanged", "configured"]
    got = api.get(MODEL, api.namespace, "digits")
    assert (got["metadata"]["generation"], got["spec"]["replicas"]) == (2, 2)
    assert [o["metadata"]["name"] for o in api.list(MODEL, api.namespace)] == ["digits"]
    api.delete(MODEL, api.namespace, "digits")
    assert api.list(MODEL, api.namespace) == []


def test_a_merge_changes_what_it_names_and_removes_what_is_null(api: ClusterClient) -> None:
    data = model(rollout={"steps": [{"weight": 5}], "paused": True})
    data["metadata"]["namespace"] = api.namespace
    client.apply(api, data)
    change = {"metadata": {"annotations": {"a": "b", "c": None}}, "spec": {"rollout": {"paused": None}, "replicas": 2}}
    api.merge(MODEL, api.namespace, "digits", change)
    got = api.get(MODEL, api.namespace, "digits")
    assert got["metadata"]["annotations"] == {"a": "b"}
    assert (got["spec"]["replicas"], got["spec"]["rollout"]["paused"]) == (2, False)
    assert [step["weight"] for step in got["spec"]["rollout"]["steps"]] == [5]


def test_refusals_are_errors_that_name_the_object(api: ClusterClient) -> None:
    bad, stale = model(replicas=-1), model()
    bad["metadata"]["namespace"] = stale["metadata"]["namespace"] = api.namespace
    with pytest.raises(InvalidObject, match=r'Model.penstock.dev "digits" is invalid: .*spec.replicas'):
        api.apply(MODEL, bad)
    with pytest.raises(NotFound, match=r'models\.penstock\.dev "digits" not found'):
        api.get(MODEL, api.namespace, "digits")
    api.apply(MODEL, stale)
    stale["metadata"]["resourceVersion"] = "1"
    stale["spec"]["replicas"] = 2
    with pytest.raises(Conflict, match="the object has been modified"):
        api.apply(MODEL, stale)


def test_a_field_that_was_left_out_is_not_taken_from_its_owner(api: ClusterClient, cluster: Cluster) -> None:
    data = model()
    data["metadata"]["namespace"] = api.namespace
    data["spec"].pop("replicas", None)
    client.apply(api, data)
    cluster.kubectl("scale", "model/digits", "--replicas=3")
    client.apply(api, data | {"metadata": data["metadata"] | {"labels": {"team": "a"}}})
    assert api.get(MODEL, api.namespace, "digits")["spec"]["replicas"] == 3


def test_a_field_that_another_tool_set_is_not_taken_but_it_is_said_how(api: ClusterClient, cluster: Cluster) -> None:
    cluster.apply(model())
    data = model(source={"uri": "s3://models/other.onnx"})
    data["metadata"]["namespace"] = api.namespace
    with pytest.raises(Conflict) as refusal:
        api.apply(MODEL, data)
    assert str(refusal.value) == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using penstock.dev/v1alpha1: '
        ".spec.source.uri\nchange them with the tool that set them, or take them over: "
        "kubectl apply --server-side --field-manager=penstock-cli --force-conflicts -f FILE"
    )


def test_the_command_line_applies_shows_and_deletes(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    penstock = Penstock(cluster)
    file = tmp_path / "model.json"
    file.write_text(json.dumps(model()))
    assert penstock("apply", "-f", str(file)) == (0, "models/digits created\n", "")
    code, out, _ = penstock("get", "mdl", "-o", "json")
    assert (code, [o["metadata"]["name"] for o in json.loads(out)["items"]]) == (0, ["digits"])
    assert penstock("logs", "digits") == (
        1,
        "",
        f"error: model {cluster.namespace}/digits has no pods; see `kubectl penstock describe model digits`\n",
    )
    assert penstock("delete", "-f", str(file)) == (0, "models/digits deleted\n", "")
    assert penstock("get", "models", "digits") == (1, "", 'error: models.penstock.dev "digits" not found\n')


def test_a_rollout_is_reported_as_a_page_in_the_present_folder(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    penstock = Penstock(cluster)
    cluster.apply(model())
    without = "error: model digits: it had no rollout by steps, so there is nothing to report\n"
    assert penstock("rollout", "report", "digits") == (1, "", without)
    at = "2026-01-02T03:04:05Z"
    rollout = {"revision": "5e6f", "stable": "1a2b", "began": at, "state": "Promoted", "since": at, "message": "it is"}
    status = json.dumps({"status": {"rollout": rollout}})
    cluster.kubectl("patch", "model", "digits", "--subresource=status", "--type=merge", "-p", status)
    assert penstock("rollout", "report", "digits", folder=tmp_path) == (0, "digits-5e6f.html\n", "")
    assert "<title>Rollout of digits: revision 5e6f, promoted</title>" in (tmp_path / "digits-5e6f.html").read_text()
    elsewhere = tmp_path / "none" / "page.html"
    refused = f"error: -o {elsewhere}: No such file or directory; name another file\n"
    assert penstock("rollout", "report", "digits", "-o", str(elsewhere)) == (1, "", refused)


@pytest.fixture
def settings(cluster: Cluster) -> Iterator[None]:
    """The store that the cluster's administrator set for everybody."""
    cluster.plane.kubectl("create", "namespace", "penstock-system")
    cluster.plane.kubectl(
        "-n", "penstock-system", "create", "configmap", "penstock", "--from-literal=store=s3://everybody/models"
    )
    yield
    cluster.plane.kubectl("delete", "namespace", "penstock-system")


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    file = tmp_path / "model.json"
    file.write_text(json.dumps(model(source={"uri": "model.onnx"})))
    return file


DIGEST = hashlib.sha256(b"weights").hexdigest()


def test_a_local_file_needs_a_store(cluster: Cluster, file: pathlib.Path) -> None:
    assert Penstock(cluster)("apply", "-f", str(file)) == (
        1,
        "",
        f"error: file://{file.parent}/model.onnx has to be uploaded, and no artifact store is set: name one that "
        "you can write and the pods can read with --store s3://BUCKET/PREFIX or PENSTOCK_STORE, or for everybody as "
        "`store` in the ConfigMap `penstock` of Penstock's namespace\n",
    )
    assert Penstock(cluster)("get", "models")[1] == "no models here; `penstock apply -f FILE` makes one\n"


def test_a_dry_run_shows_where_a_local_file_would_be_and_changes_nothing(
    cluster: Cluster, file: pathlib.Path, settings: None
) -> None:
    for store, arguments in (("s3://everybody/models", []), ("s3://mine/x", ["--store", "s3://mine/x"])):
        uri = f"{store}/sha256-{DIGEST}/model.onnx"
        code, out, error = Penstock(cluster)("apply", "--dry-run", "-f", str(file), *arguments)
        assert (code, error) == (0, "")
        assert out.startswith(f"# {file.parent}/model.onnx would be uploaded to {uri}\n---\n")
        assert yaml.safe_load(out)["spec"]["source"] == {"uri": uri, "digest": f"sha256:{DIGEST}"}
    assert Penstock(cluster)("get", "models")[1] == "no models here; `penstock apply -f FILE` makes one\n"
