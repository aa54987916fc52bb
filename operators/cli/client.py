"""What the verbs ask of either mode, and which mode a command line means."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from operators.api.errors import Conflict, InvalidObject, NotFound, OperatorError, Unreachable
from operators.cli import datadir, kinds
from operators.cli.kinds import Kind

if TYPE_CHECKING:
    import httpx

Object = dict[str, Any]
"""An object of the API as JSON: the verbs show objects, they decide nothing on them."""


class Client(Protocol):
    """The verbs on objects; two implementations, ``penstock up`` and a cluster.

    Raises, from every verb:
        NotFound, Conflict, InvalidObject: the API refuses.
        Unreachable: it does not answer.
    """

    @property
    def namespace(self) -> str | None:
        """Where objects are looked for; None: in all namespaces."""

    @property
    def reads_files(self) -> bool:
        """Whether the files of this machine are read where they are; else they have to be in ``store``."""

    def store(self) -> str | None:
        """The artifact store that was set for everybody, as a URI."""

    def way_to(self, url: str) -> httpx.BaseTransport | None:
        """How ``url`` of a status is reached, where that is not by a connection from here."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """The object."""

    def list(self, kind: Kind, namespace: str | None) -> list[Object]:
        """All objects of a kind, in one namespace or in all."""

    def apply(self, kind: Kind, data: Object) -> Object:
        """Make the object as ``data`` says; the object as it is then."""

    def merge(self, kind: Kind, namespace: str, name: str, change: Object) -> Object:
        """Change the fields of the object that ``change`` has, and remove those that are None there (RFC 7396)."""

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete the object, with all that was made for it."""

    def logs(self, namespace: str, name: str, follow: bool) -> Iterator[str]:
        """What the servers of a Model wrote, in pieces."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What the command line says about where to act."""

    data_dir: pathlib.Path
    context: str | None = None
    kubeconfig: str | None = None
    namespace: str | None = None
    cluster: bool = False
    """The command was called as a plugin of kubectl."""
    local: bool = False
    """The data directory was named, so a cluster that happens to be set up is not meant."""


class NothingRuns(OperatorError):
    """No ``penstock up`` runs on the data directory, and no cluster is set up."""


def choose(target: Target, environment: Mapping[str, str]) -> Client:
    """The cluster that the command line names, else a running ``penstock up``, else a cluster that is set up.

    Raises:
        OperatorError: there is neither.
    """
    in_cluster = "KUBERNETES_SERVICE_HOST" in environment
    kubeconfig = target.kubeconfig or environment.get("KUBECONFIG")
    if kubeconfig is None and (usual := pathlib.Path.home() / ".kube/config").exists():
        kubeconfig = str(usual)
    named = target.cluster or target.context or target.kubeconfig or target.namespace
    if not named and (running := datadir.running(target.data_dir)):
        return LocalClient(running)
    left = 0 if named else datadir.left(target.data_dir)
    if left:
        raise NothingRuns(
            f"no `penstock up` runs on {target.data_dir}, but processes of an earlier one do ({left}): "
            "start `penstock up` again, which goes on with them, or end them with `penstock down`"
        )
    if (not kubeconfig and not in_cluster) or (target.local and not named):
        if named:
            missing = "no cluster is set up: name a kubeconfig with --kubeconfig or KUBECONFIG"
            if target.namespace and not target.cluster:
                missing += "; with `penstock up`, write NAMESPACE/NAME instead of --namespace"
            raise OperatorError(missing)
        raise NothingRuns(
            f"no `penstock up` runs on {target.data_dir}, and no cluster is set up: "
            "start `penstock up`, name the folder of one with --data-dir, or a cluster with --kubeconfig"
        )
    if kubeconfig:
        check(kubeconfig)
    from operators.cli.cluster import ClusterClient  # the Kubernetes client takes most of a second to import

    return ClusterClient.open(kubeconfig, target.context, target.namespace)


def check(kubeconfig: str) -> None:
    """See that there is a file; the official client speaks of missing keys instead.

    Raises:
        OperatorError: there is none.
    """
    if not any(pathlib.Path(path).expanduser().is_file() for path in kubeconfig.split(os.pathsep)):
        raise OperatorError(f"kubeconfig {kubeconfig}: no such file; name another with --kubeconfig")


def apply(client: Client, data: Object) -> str:
    """Apply one object; ``created``, ``configured`` or ``unchanged``."""
    kind, metadata = kinds.of(data["kind"]), data["metadata"]
    try:
        before = client.get(kind, metadata.get("namespace", ""), metadata["name"])
    except NotFound:
        client.apply(kind, data)
        return "created"
    after = client.apply(kind, data)
    return "unchanged" if _wanted(before) == _wanted(after) else "configured"


def _wanted(data: Object) -> tuple[Any, ...]:
    metadata = data["metadata"]
    return metadata["generation"], metadata.get("labels", {}), metadata.get("annotations", {})


@dataclasses.dataclass(frozen=True)
class LocalClient:
    """The API of a running ``penstock up``, which listens on this machine alone."""

    running: datadir.Running
    reads_files = True

    @property
    def namespace(self) -> str | None:
        return None

    def store(self) -> str | None:
        return None

    def way_to(self, url: str) -> httpx.BaseTransport | None:
        return None

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return self._json("GET", kind.path(namespace, name))

    def list(self, kind: Kind, namespace: str | None) -> list[Object]:
        items: list[Object] = self._json("GET", kind.path(namespace))["items"]
        return items

    def apply(self, kind: Kind, data: Object) -> Object:
        return self._json("PATCH", kind.path(data["metadata"].get("namespace", ""), data["metadata"]["name"]), data)

    def merge(self, kind: Kind, namespace: str, name: str, change: Object) -> Object:
        return self._json("PATCH", kind.path(namespace, name), change, kinds.MERGE)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self._json("DELETE", kind.path(namespace, name))

    def logs(self, namespace: str, name: str, follow: bool) -> Iterator[str]:
        response = self._request("GET", f"/logs/{namespace}/{name}" + ("?follow=true" if follow else ""))
        while piece := response.read1():
            yield piece.decode(errors="replace")

    def _json(self, method: str, path: str, body: Object | None = None, how: str = kinds.APPLY) -> Object:
        answer: Object = json.loads(self._request(method, path, body, how).read())
        return answer

    def _request(
        self, method: str, path: str, body: Object | None = None, how: str = kinds.APPLY
    ) -> http.client.HTTPResponse:
        address = urllib.parse.urlsplit(self.running.url)
        headers = {
            "Authorization": f"Bearer {self.running.token}",
            "Content-Type": how,
        }
        try:
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"`penstock up` (process {self.running.pid}) does not answer at {self.running.url}: {error}; "
                "start it again, or end what it left running with `penstock down`"
            ) from error
        if response.status >= 400:
            raise refused(response.status, response.read())
        return response


def refused(status: int, body: bytes | str) -> OperatorError:
    """The error for a Kubernetes ``Status`` that came with an HTTP code."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {status}: {body[:200]!r}"
    kinds_of_error: dict[int, type[OperatorError]] = {
        404: NotFound,
        409: Conflict,
        400: InvalidObject,
        422: InvalidObject,
    }
    return kinds_of_error.get(status, Unreachable)(message)
