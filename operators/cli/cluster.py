"""The verbs against a cluster, through the official client as it is: one request at a time needs no more."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import json
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes import client, config

from operators.api.errors import Conflict, NotFound, OperatorError, Unreachable
from operators.cli.client import Object, refused
from operators.cli.kinds import APPLY, MERGE, Kind

if TYPE_CHECKING:
    import httpx

FIELD_MANAGER = "penstock-cli"
"""Not the operator's: what a person applied stays that person's."""
SETTINGS = "/api/v1/namespaces/penstock-system/configmaps/penstock"
"""What whoever installed Penstock set for everybody."""


@dataclasses.dataclass(frozen=True)
class ClusterClient:
    """Models of a cluster, as the user of a kubeconfig or of a pod's service account."""

    api: client.ApiClient
    namespace: str
    reads_files = False

    @classmethod
    def open(cls, kubeconfig: str | None, context: str | None, namespace: str | None) -> ClusterClient:
        """Read a kubeconfig, or (None) the service account of the pod; nothing connects yet.

        Raises:
            OperatorError: it cannot be read or lacks something.
        """
        configuration = client.Configuration()
        try:
            if kubeconfig is None:
                config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
                usual = "default"
            else:
                config.load_kube_config(kubeconfig, context, configuration)  # type: ignore[no-untyped-call]
                contexts, current = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
                used = next((c for c in contexts if c["name"] == context), current)
                usual = used["context"].get("namespace", "default")
        except (config.ConfigException, OSError, ValueError) as error:
            raise OperatorError(f"kubeconfig {kubeconfig}: {error}; name another with --kubeconfig") from error
        configuration.retries = False
        return cls(client.ApiClient(configuration), namespace or usual)

    def store(self) -> str | None:
        try:
            return self._call("GET", SETTINGS).get("data", {}).get("store") or None
        except NotFound:
            return None
        except Unreachable as error:
            raise Unreachable(f"{error}\nname the artifact store with --store, which needs no ConfigMap") from error

    def way_to(self, url: str) -> httpx.BaseTransport | None:
        from operators.cli import service_proxy  # brings an HTTP client that the other verbs do without

        return service_proxy.ServiceProxy(self.api) if service_proxy.path(url) else None

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return self._call("GET", kind.path(namespace, name))

    def list(self, kind: Kind, namespace: str | None) -> builtins.list[Object]:
        items: list[Object] = self._call("GET", kind.path(namespace))["items"]
        return items

    def apply(self, kind: Kind, data: Object) -> Object:
        path = kind.path(data["metadata"].get("namespace", self.namespace), data["metadata"]["name"])
        try:
            return self._call("PATCH", f"{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict", data)
        except Conflict as error:
            if "Apply failed with" not in str(error):
                raise
            take = f"kubectl apply --server-side --field-manager={FIELD_MANAGER} --force-conflicts -f FILE"
            raise Conflict(f"{error}\nchange them with the tool that set them, or take them over: {take}") from error

    def merge(self, kind: Kind, namespace: str, name: str, change: Object) -> Object:
        return self._call("PATCH", f"{kind.path(namespace, name)}?fieldManager={FIELD_MANAGER}", change, MERGE)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self._call("DELETE", kind.path(namespace, name))

    def logs(self, namespace: str, name: str, follow: bool) -> Iterator[str]:
        selector = urllib.parse.urlencode({"labelSelector": f"penstock.dev/model={name}"})
        pods = self._call("GET", f"/api/v1/namespaces/{namespace}/pods?{selector}")["items"]
        if not pods:
            raise NotFound(f"model {namespace}/{name} has no pods; see `kubectl penstock describe model {name}`")
        # Only one stream can be followed at a time: the newest pod's, which is the one about to serve.
        pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        for pod in pods[-1:] if follow else pods:
            yield f"==> {pod['metadata']['name']} <==\n"
            path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log"
            response = self._request("GET", path + ("?follow=true" if follow else ""))
            with _translated(self.api.configuration.host):
                for piece in response.stream(4096):
                    yield piece.decode(errors="replace")

    def _call(self, method: str, path: str, body: Object | None = None, how: str = APPLY) -> Object:
        response = self._request(method, path, body, how)
        with _translated(self.api.configuration.host):
            data: Object = json.loads(response.data)
        return data

    def _request(self, method: str, path: str, body: Object | None = None, how: str = APPLY) -> Any:
        patch = {"Content-Type": how} if method == "PATCH" else {}
        headers = {"Accept": "application/json, */*"} | patch
        request = self.api.param_serialize(
            method,
            path,
            header_params=headers,
            # The client writes JSON by itself where the media type says so.
            body=json.dumps(body) if body and how == APPLY else body,
            auth_settings=["BearerToken"],
        )
        with _translated(self.api.configuration.host):
            response = self.api.call_api(*request).response
            if response.status >= 400:
                raise refused(response.status, response.data)
        return response


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except client.ApiException as error:
        raise refused(error.status, error.body or "") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(f"the API server at {host} does not answer: {error}") from error
