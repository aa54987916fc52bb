"""A real OCI registry on loopback, and pushing to it as ``oras push`` does."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from tests.rig import ports

DEADLINE_S = 60.0
USER, PASSWORD = "rig", "rig-secret"
_HTPASSWD = "rig:$2b$04$a6cjqcTl83vatpTklbF3retpvoI7dzfBy1wZIVk8nKgrSG3LDHAAi"
"""The password under bcrypt, the only way the registry takes one."""
LAYER = "application/vnd.oci.image.layer.v1.tar"
"""What ``oras push FILE`` calls a plain file whose media type is not given."""
TITLE = "org.opencontainers.image.title"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"


@dataclasses.dataclass(frozen=True)
class Registry:
    """``host`` is HOST:PORT as it stands in a URI; blobs lie below ``folder``."""

    host: str
    folder: pathlib.Path
    auth: tuple[str, str] | None

    def blob(self, digest: str) -> pathlib.Path:
        """The file that holds a blob."""
        hexadecimal = digest.removeprefix("sha256:")
        place = self.folder / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal
        return place / "data"

    def push(self, repository: str, tag: str, files: Mapping[str, bytes]) -> str:
        """One layer a file; the digest of the manifest."""
        return self.push_layers(repository, tag, [self.layer(repository, *file) for file in files.items()])

    def layer(self, repository: str, title: str | None, data: bytes, kind: str = LAYER, **more: str) -> dict[str, Any]:
        """Upload a blob; its entry in a manifest."""
        annotations = ({TITLE: title} if title else {}) | more
        digest = self._upload(repository, data)
        return {"mediaType": kind, "digest": digest, "size": len(data), "annotations": annotations}

    def push_layers(self, repository: str, tag: str, layers: list[dict[str, Any]]) -> str:
        """A manifest of these layers; its digest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": "application/vnd.penstock.test",
            "config": {"mediaType": _EMPTY, "digest": self._upload(repository, b"{}"), "size": 2},
            "layers": layers,
        }
        body = json.dumps(manifest).encode()
        url = f"http://{self.host}/v2/{repository}/manifests/{tag}"
        httpx.put(url, content=body, headers={"Content-Type": _MANIFEST}, auth=self.auth).raise_for_status()
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _upload(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        begun = httpx.post(f"http://{self.host}/v2/{repository}/blobs/uploads/", auth=self.auth).raise_for_status()
        where = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        httpx.put(where, content=data, headers=headers, auth=self.auth).raise_for_status()
        return digest


@contextlib.contextmanager
def running(
    binary: pathlib.Path,
    folder: pathlib.Path,
    *,
    closed: bool = False,
    address: str = "127.0.0.1",
    within: Sequence[str] = (),
) -> Iterator[Registry]:
    """An empty one until the block ends; where it is ``closed`` it asks for USER and PASSWORD. On another address
    than this machine's the command ``within`` leads to where it is.
    """
    folder.mkdir(parents=True)
    (port,) = ports.free(1)
    host = f"{address}:{port}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host},
    }
    if closed:
        (folder / "htpasswd").write_text(_HTPASSWD + "\n")
        config["auth"] = {"htpasswd": {"realm": "rig", "path": str(folder / "htpasswd")}}
    (folder / "config.yaml").write_text(json.dumps(config))
    command = [*within, str(binary), "serve", str(folder / "config.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, host)
        yield Registry(host, folder / "data", (USER, PASSWORD) if closed else None)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _wait(process: subprocess.Popen[bytes], host: str) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while True:
        assert process.poll() is None, f"the registry ended with {process.returncode}"
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"http://{host}/v2/")
            return
        assert time.monotonic() < end, f"the registry does not answer at {host}"
        pause.wait(0.05)
