"""Artifacts in an OCI registry: the layers of one manifest are plain files, each with its title, as ``oras push`` lays
them out.

An artifact of one file is that file, one of several is a folder. Nothing is unpacked: an archive, and so the
layers of a container image, is refused. Every blob is held against the size and the digest that the manifest
promises while it is read, a manifest against the digest in its URI.

Credentials are those of Docker's ``config.json``, its helpers included, and
are given to the registry they are kept for alone. Without any the registry is asked anonymously. Nothing
travels over plain HTTP, wherever a registry sends us, but to this machine and to hosts that were named.

Follows the OCI distribution specification, https://github.com/opencontainers/distribution-spec, and the token
flow of https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import ipaddress
import json
import re
import subprocess
import urllib.request
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import urllib3

from serving.errors import ArtifactRefused, StorageUnavailable

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"oci://(?P<registry>[A-Za-z0-9.-]+(?::\d+)?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MAX_MANIFEST_BYTES = 4 << 20
"""What every registry has to take; a larger one is nobody's model."""
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
"""Set by ``oras push FOLDER`` on the archive it makes. The media type alone does not tell: a plain file that is
pushed without one gets that of a tar layer.
"""
_ARCHIVE = re.compile(r"(\+|\.|/)(gzip|zstd|zip|x-tar)$")
_DOCKER_HUB = ("docker.io", "registry-1.docker.io", "https://index.docker.io/v1/")
"""As people write it, where it answers, and what its credentials are kept under."""
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_RETRY = urllib3.Retry(total=5, connect=2, read=0, status=0)


@dataclasses.dataclass(frozen=True)
class _Layer:
    digest: str
    bytes: int


class Artifact:
    """One artifact, as far as ``storage`` needs a file system. ``root`` is a file's name, or "" for a folder."""

    protocol = "oci"

    def __init__(self, uri: str, docker_config: Path | None, plain_http: Collection[str]) -> None:
        found = _REFERENCE.fullmatch(uri)
        if found is None:
            raise ArtifactRefused(
                f"{uri} names no artifact; expected oci://REGISTRY/REPOSITORY:TAG, or …@sha256: and 64 hex digits"
            )
        self._uri, self._registry, self._repository = uri, found["registry"], found["repository"]
        host = _DOCKER_HUB[1] if self._registry == _DOCKER_HUB[0] else self._registry
        self._pool, self._docker_config = _Pool(uri, plain_http), docker_config
        self._base = f"{'http' if _plain(host, plain_http) else 'https'}://{host}/v2/{self._repository}"
        self._authorization: dict[str, str] = {}
        self._layers = self._read_manifest(found["digest"] or found["tag"] or "latest", found["digest"])
        self.root = next(iter(self._layers)) if len(self._layers) == 1 else ""

    def info(self, path: str) -> dict[str, str]:
        return {"type": "file" if path in self._layers else "directory"}

    def find(self, path: str) -> list[str]:
        return list(self._layers)

    def open(self, path: str, mode: str) -> _Blob:
        layer = self._layers[path]
        return _Blob(self._get(f"blobs/{layer.digest}", "*/*"), layer, f"{self._uri}: {path}")

    def _read_manifest(self, reference: str, digest: str | None) -> dict[str, _Layer]:
        response = self._get(f"manifests/{reference}", _MANIFEST)
        try:
            body = response.read(_MAX_MANIFEST_BYTES)
        finally:
            response.close()
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if digest not in (None, found):
            raise ArtifactRefused(f"{self._uri}: the registry gave a manifest with the digest {found}")
        try:
            layers = json.loads(body)["layers"]
            return self._titled(layers)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactRefused(f"{self._uri} is no artifact of files, but an index or something else") from error

    def _titled(self, layers: list[dict[str, Any]]) -> dict[str, _Layer]:
        found: dict[str, _Layer] = {}
        for layer in layers:
            annotations = layer.get("annotations") or {}
            title, kind = annotations.get(_TITLE), str(layer["mediaType"])
            if title is None or annotations.get(_UNPACK) == "true" or _ARCHIVE.search(kind):
                what = "an archive" if title else "a layer without a title, as in a container image,"
                raise ArtifactRefused(
                    f"{self._uri} holds {what} ({kind}), and nothing is unpacked; push the files themselves: "
                    f"oras push {self._registry}/{self._repository}:TAG FILE…"
                )
            path = PurePosixPath(title)
            if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in title:
                raise ArtifactRefused(f"{self._uri} holds a file called '{title}'; push it from the folder it is in")
            if path.as_posix() in found:
                raise ArtifactRefused(f"{self._uri} holds two files called '{title}'; push each once")
            size, digest = int(layer["size"]), str(layer["digest"])
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                raise ArtifactRefused(f"{self._uri}: '{title}' has the digest {digest}; push it with a SHA-256 one")
            found[path.as_posix()] = _Layer(digest, size)
        if not found:
            raise ArtifactRefused(f"{self._uri} holds no file; push some: oras push {self._registry}/… FILE…")
        return found

    def _get(self, path: str, accept: str) -> urllib3.BaseHTTPResponse:
        response = self._ask(f"{self._base}/{path}", {"Accept": accept} | self._authorization)
        if response.status == 401 and not self._authorization:
            response.close()
            self._authorization = self._authorized(response.headers.get("WWW-Authenticate", ""))
            response = self._ask(f"{self._base}/{path}", {"Accept": accept} | self._authorization)
        if response.status == 404:
            raise FileNotFoundError(f"{self._base}/{path}")
        if response.status in (401, 403):
            raise self._denied(f"HTTP {response.status}: {_said(response)}")
        if response.status != 200:
            raise StorageUnavailable(
                f"{self._uri} could not be copied: {self._registry} answers HTTP {response.status}: "
                f"{_said(response)}; try again"
            )
        return response

    def _ask(self, url: str, headers: dict[str, str], fields: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """The answer with its body unread, and as the registry has it."""
        headers = headers | {"Accept-Encoding": "identity"}
        return self._pool.request("GET", url, fields=fields, headers=headers, preload_content=False)

    def _authorized(self, challenge: str) -> dict[str, str]:
        """The header that answers a challenge, as far as credentials are known."""
        basic = _credentials(self._registry, self._docker_config)
        scheme, _, parameters = challenge.partition(" ")
        if scheme.lower() == "basic" and basic:
            return basic
        if scheme.lower() != "bearer":
            raise self._denied("the registry wants credentials and none are set")
        given = urllib.request.parse_keqv_list(urllib.request.parse_http_list(parameters))
        fields = {name: value for name, value in given.items() if name in ("service", "scope")}
        response = self._ask(given.get("realm", ""), basic, fields)
        if response.status != 200:
            raise self._denied(f"the token service answers HTTP {response.status}: {_said(response)}")
        try:
            token = json.loads(response.read(_MAX_MANIFEST_BYTES))
            return {"Authorization": f"Bearer {token.get('token') or token['access_token']}"}
        except (ValueError, KeyError, AttributeError) as error:
            raise self._denied("the token service gave no token") from error

    def _denied(self, why: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"{self._uri} may not be read: {why}; log in to {self._registry}, in a cluster by a Secret: "
            f"kubectl create secret docker-registry penstock-registry --docker-server={self._registry} …"
        )


class _Blob:
    """The bytes of one layer; reading fails where they are not what the manifest promised."""

    def __init__(self, response: urllib3.BaseHTTPResponse, layer: _Layer, what: str) -> None:
        self._response, self._layer, self._what = response, layer, what
        self._digest, self._bytes = hashlib.sha256(), 0

    def __enter__(self) -> _Blob:
        return self

    def __exit__(self, *error: object) -> None:
        self._response.close()

    def read(self, size: int) -> bytes:
        chunk = self._response.read(size)
        self._digest.update(chunk)
        self._bytes += len(chunk)
        if self._bytes > self._layer.bytes:
            raise ArtifactRefused(f"{self._what} has more than the {self._layer.bytes} bytes of its manifest")
        if not chunk and self._bytes < self._layer.bytes:
            raise StorageUnavailable(
                f"{self._what} ended after {self._bytes} of {self._layer.bytes} bytes; try again, or push it again"
            )
        if not chunk and f"sha256:{self._digest.hexdigest()}" != self._layer.digest:
            raise ArtifactRefused(f"{self._what} is not what its manifest promises; push it again")
        return chunk


class _Pool(urllib3.PoolManager):
    """Keeps to the rule on plain HTTP, for redirects and token services too.

    Credentials do not follow a redirect to another host: urllib3 drops them.
    """

    def __init__(self, uri: str, plain_http: Collection[str]) -> None:
        super().__init__(timeout=_TIMEOUT, retries=_RETRY)
        self._uri, self._plain_http = uri, plain_http

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        address = urllib3.util.parse_url(url)
        if address.scheme != "https" and not _plain(address.netloc or "", self._plain_http):
            raise ArtifactRefused(
                f"{self._uri}: {url.partition('?')[0]} is not encrypted; where that is meant, "
                f"allow it: PENSTOCK_PLAIN_HTTP={address.netloc}"
            )
        return super().urlopen(method, url, redirect, **options)


def _plain(host: str, allowed: Collection[str]) -> bool:
    """Whether a host, with its port if it has one, is spoken to without TLS."""
    name = host.rpartition(":")[0] or host
    if host in allowed or name in allowed or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _credentials(registry: str, docker_config: Path | None) -> dict[str, str]:
    """The header that says who we are to a registry; empty where nobody logged in to it."""
    if docker_config is None:
        return {}
    file = docker_config / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageUnavailable(
            f"{file} cannot be read: {error}; correct it, or name another by DOCKER_CONFIG"
        ) from error
    keys = _DOCKER_HUB if registry in _DOCKER_HUB else (registry, f"https://{registry}", f"https://{registry}/v2/")
    for key in keys:
        helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
        entry = (config.get("auths") or {}).get(key) or {}
        pair = entry.get("auth") or _encoded(entry.get("username"), entry.get("password"))
        if pair or (pair := _helped(helper, key)):
            return {"Authorization": f"Basic {pair}"}
    return {}


def _helped(helper: str | None, key: str) -> str | None:
    """What a program ``docker-credential-HELPER`` keeps under a key."""
    if not helper:
        return None
    try:
        command = [f"docker-credential-{helper}", "get"]
        found = json.loads(subprocess.run(command, input=key.encode(), capture_output=True, check=True).stdout)
        return _encoded(found["Username"], found["Secret"])
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError):
        return None  # as good as not logged in, which the registry's answer then says


def _encoded(name: str | None, password: str | None) -> str | None:
    return base64.b64encode(f"{name}:{password}".encode()).decode() if name and password else None


def _said(response: urllib3.BaseHTTPResponse) -> str:
    """The words of an error, in one line."""
    try:
        body = response.read(4096)
        return "; ".join(str(error["message"]) for error in json.loads(body)["errors"])[:500]
    except (ValueError, KeyError, TypeError, urllib3.exceptions.HTTPError):
        return response.reason or "nothing more"
    finally:
        response.close()
