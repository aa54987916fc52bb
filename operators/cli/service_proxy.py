"""Requests to a Service of a cluster, sent through its API server with the user's own rights.

A Model's URL is a name that only the cluster resolves. Wherever ``kubectl`` works this way does too, without a
port being forwarded. It is for single requests of people: the API server is no place for load.
"""

from __future__ import annotations

import re
import socket

import httpx
import urllib3
from kubernetes import client

_SERVICE = re.compile(r"(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)(\.svc(\.[a-z0-9.-]+)?)?")


def path(url: str) -> str | None:
    """Where the API server has what is at ``url``; None where that is reached from here, or is no Service."""
    address = httpx.URL(url)
    found = _SERVICE.fullmatch(address.host)
    if found is None or _resolves(address.host):
        return None
    port = address.port or (443 if address.scheme == "https" else 80)
    service = f"{address.scheme}:{found['name']}:{port}"
    return f"/api/v1/namespaces/{found['namespace']}/services/{service}/proxy{address.raw_path.decode()}"


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


class ServiceProxy(httpx.BaseTransport):
    """For ``httpx.Client``: sends what goes to a Service by way of the API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        place = path(str(request.url))
        assert place is not None
        own = {name: value for name, value in request.headers.items() if name != "host"}
        _, url, headers, *_ = self._api.param_serialize(
            request.method, place, header_params=own, auth_settings=["BearerToken"]
        )
        limits = request.extensions["timeout"]
        try:
            response = self._api.rest_client.pool_manager.request(
                request.method,
                url,
                body=request.read(),
                headers=headers,
                timeout=urllib3.Timeout(connect=limits["connect"], read=limits["read"]),
                decode_content=False,
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise httpx.ConnectError(f"the API server does not answer: {error}") from error
        return httpx.Response(response.status, headers=list(response.headers.items()), content=response.data)
