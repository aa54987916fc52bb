"""Images without a registry: made here from single files, and imported into a node."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rig.node import isolation
from tests.rig.node.layout import Node, NodeError

PAUSE = "penstock-rig-pause:1"
DNS = "penstock-rig-dns:1"
BUSYBOX = "penstock-rig-busybox:1"

REF_NAME = "org.opencontainers.image.ref.name"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def build(archive: Path, files: Mapping[str, Path], entrypoint: Sequence[str], links: Sequence[str] = ()) -> Path:
    """An OCI archive with one layer that holds ``files`` by path inside; ``links`` point to the first of them."""
    layer = _tar({name: path.read_bytes() for name, path in files.items()}, {name: next(iter(files)) for name in links})
    machine = platform.machine()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": "65532:65532", "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    kind = "application/vnd.oci.image"
    packed = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": _descriptor(f"{kind}.config.v1+json", packed),
        "layers": [_descriptor(f"{kind}.layer.v1.tar", layer)],
    }
    wrapped = json.dumps(manifest).encode()
    index = {"schemaVersion": 2, "manifests": [_descriptor(f"{kind}.manifest.v1+json", wrapped)]}
    blobs = {f"blobs/{_digest(blob).replace(':', '/')}": blob for blob in (layer, packed, wrapped)}
    layout = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    archive.write_bytes(_tar({**layout, **blobs}))
    return archive


def busybox(archive: Path) -> Path:
    """A shell and the usual small programs, for pods of tests."""
    program = _program("busybox")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = [f"bin/{name}" for name in listed if name != "busybox"]
    return build(archive, {"bin/busybox": program}, [], links)


def pause(archive: Path) -> Path:
    """What holds a pod's namespaces."""
    return build(archive, {"pause": _program("catatonit")}, ["/pause", "-P"])


def load(node: Node, archive: Path, *names: str) -> None:
    """Import an OCI archive as docker.io/library/NAME for each of ``names`` (NAME:TAG); nothing if it is there.

    Raises:
        NodeError: the archive cannot be imported.
    """
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None, f"{archive} holds no index.json: it is no OCI archive"
        content = index.read()
    digest = hashlib.sha256(content).hexdigest()
    named = {each.get("annotations", {}).get(REF_NAME) for each in json.loads(content)["manifests"]}
    for name in names:
        mark = node.folder / "images" / name.replace("/", "_")
        if mark.is_file() and mark.read_text() == digest:
            continue
        full = f"docker.io/library/{name}"
        # One that is called so already would be written over by itself, and the first of both collected as garbage
        # while it is unpacked.
        options = () if full in named else ("--index-name", full)
        _ctr(node, "import", *options, str(archive.resolve()))
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(digest)


def _ctr(node: Node, *arguments: str) -> None:
    command = ["ctr", f"--address={node.containerd_socket}", "--namespace=k8s.io", "images", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NodeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _program(name: str) -> Path:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + isolation.PROGRAMS)
    if found is None:
        raise NodeError(f"no {name} in PATH")
    return Path(found).resolve()


def _tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        # A folder that is not named is made for root alone.
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents if parent.name}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.LNKTYPE, target, 0o755
            tar.addfile(entry)
    return made.getvalue()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
