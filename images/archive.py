"""What an OCI archive says of the image in it.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import IO, Any


def measured(archive: Path) -> tuple[str, int, int]:
    """An image's digest, the bytes of its compressed layers, and the bytes of its layers unpacked."""
    with tarfile.open(archive) as tar:
        digest, manifest = _manifest(tar)
        unpacked = 0
        for layer in manifest["layers"]:
            with gzip.open(_blob(tar, layer["digest"])) as content:
                while chunk := content.read(1 << 20):
                    unpacked += len(chunk)
    return digest, sum(layer["size"] for layer in manifest["layers"]), unpacked


def configuration(archive: Path) -> dict[str, Any]:
    """What a container of the image gets by default: user, entrypoint, environment, labels."""
    with tarfile.open(archive) as tar:
        _, manifest = _manifest(tar)
        made: dict[str, Any] = json.load(_blob(tar, manifest["config"]["digest"]))["config"]
    return made


def files(archive: Path) -> set[str]:
    """The path of everything in an image, from its root; no layer of ours deletes what another wrote."""
    with tarfile.open(archive) as tar:
        _, manifest = _manifest(tar)
        found: set[str] = set()
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=_blob(tar, layer["digest"])) as content:
                found.update(f"/{member.name.strip('/')}" for member in content)
    return found


def bill_of_materials(archive: Path, name: str) -> bytes:
    """The bill of materials of the image: in its last layer."""
    with tarfile.open(archive) as tar:
        _, manifest = _manifest(tar)
        with tarfile.open(fileobj=_blob(tar, manifest["layers"][-1]["digest"])) as layer:
            file = layer.extractfile(f"usr/share/sbom/{name}.cdx.json")
            assert file is not None, name
            return file.read()


def _manifest(archive: tarfile.TarFile) -> tuple[str, dict[str, Any]]:
    index = archive.extractfile("index.json")
    assert index is not None, archive.name
    digest = json.load(index)["manifests"][0]["digest"]
    return digest, json.load(_blob(archive, digest))


def _blob(archive: tarfile.TarFile, digest: str) -> IO[bytes]:
    file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
    assert file is not None, digest
    return file
