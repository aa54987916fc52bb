"""Builds the images with buildah, without a daemon, into one archive each that any container runtime loads.

Two things make a second run quick: an image whose inputs are those of its archive is left alone, and buildah keeps
what each line of a Containerfile made. Everything lies below one cache folder, so that worktrees share it; runs that
start together wait for one another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from images import base, wheels

ROOT = Path(__file__).resolve().parent.parent
NAMES = tuple(sorted(path.name.partition(".")[0] for path in Path(__file__).parent.glob("*.Containerfile")))
RECORD = "images.json"
EPOCH_S = 0
"""The date of every file and layer: equal inputs give equal digests, and what did not change is not pulled again."""

Say = Callable[[str], None]


class CannotBuild(Exception):
    """An image cannot be built; the message says which, why, and what to install or read."""


@dataclasses.dataclass(frozen=True)
class Built:
    """One image's archive: its name and tag, what it was made from, its digest, and its sizes in bytes."""

    reference: str
    digest: str
    compressed_bytes: int
    unpacked_bytes: int
    revision: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What decides an image: ``files`` below the repository's root, and arguments of the build."""

    files: tuple[Path, ...]
    arguments: Mapping[str, str]

    def fingerprint(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha256(json.dumps(dict(self.arguments)).encode())
        for file in self.files:
            content = file.read_bytes()
            digest.update(f"\n{file.relative_to(ROOT)} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def build(
    names: Sequence[str], output: Path, say: Say, *, public_base: str | None = None, refresh: bool = False
) -> dict[str, Built]:
    """Build the named images, all of them for none, into ``output``; what is there and current stays.

    ``public_base`` is an image to build on instead of the base made here; ``refresh`` makes that one anew, with
    Debian's updates.

    Raises:
        CannotBuild: a program is missing, or an image failed.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise CannotBuild(f"no image is named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    output.mkdir(parents=True, exist_ok=True)
    cache = Path(os.environ.get("PENSTOCK_CACHE") or (os.environ.get("XDG_CACHE_HOME") or "~/.cache") + "/penstock")
    with _locked(cache.expanduser() / "images", say) as folder:
        before = recorded(output)
        made = dict(before)
        ready: list[str] = []
        for name in names or NAMES:
            full = f"penstock-{name}"
            wanted = inputs(name, public_base or f"localhost/penstock-base:{base.fingerprint()}")
            archive = output / f"{full}.tar"
            if not refresh and archive.exists() and full in before and before[full].fingerprint == wanted.fingerprint():
                say(f"{full}: unchanged")
                continue
            if not ready:
                _prepare(folder, say, own_base=public_base is None, refresh=refresh)
                ready.append(name)
            made[full] = _image(folder, name, wanted, archive, say)
            _write(output, made)
    return {f"penstock-{name}": made[f"penstock-{name}"] for name in names or NAMES}


def inputs(name: str, base_image: str) -> Inputs:
    """What an image is made of, as its Containerfile says."""
    containerfile = ROOT / "images" / f"{name}.Containerfile"
    sources = [ROOT / source for source in copied(containerfile.read_text())]
    own = [] if not base_image.startswith("localhost/") else [Path(base.__file__)]
    paths = [containerfile, *own, *sources]
    files = sorted({file for path in paths for file in _files(path)})
    revision, created = _revision(paths)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    arguments = {"BASE": base_image, "VERSION": version, "REVISION": revision, "CREATED": created, "SOURCE": _origin()}
    return Inputs(tuple(files), arguments)


def copied(containerfile: str) -> list[str]:
    """The paths that a Containerfile copies from its context."""
    lines = re.findall(r"^COPY +(?!--from)(.+)$", containerfile, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def recorded(output: Path) -> dict[str, Built]:
    """What ``images.json`` of a folder says of its archives; nothing if there is none, or one of another version."""
    try:
        return {name: Built(**entry) for name, entry in json.loads((output / RECORD).read_text()).items()}
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def table(images: Mapping[str, Built]) -> str:
    """One line an image: sizes in MB of 1,000,000 bytes, digest."""
    rows = [("image", "compressed", "unpacked", "digest")]
    for name, image in sorted(images.items()):
        sizes = (f"{size / 1e6:.1f} MB" for size in (image.compressed_bytes, image.unpacked_bytes))
        rows.append((name, *sizes, image.digest))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {small.rjust(widths[1])}  {large.rjust(widths[2])}  {digest}"
        for name, small, large, digest in rows
    )


def _prepare(folder: Path, say: Say, *, own_base: bool, refresh: bool) -> None:
    _programs(("buildah", "mmdebstrap") if own_base else ("buildah",), say)
    locks = sorted({ROOT / path for name in NAMES for path in _locks(name)})
    say("wheels: looking for those of the locks")
    started = time.monotonic()
    try:
        if wheels.download(locks, ROOT / "images" / "wheels"):
            say(f"wheels: downloaded in {time.monotonic() - started:.0f} s")
    except subprocess.CalledProcessError as error:
        raise CannotBuild(f"the wheels cannot be downloaded:\n{error.stderr[-2000:]}") from error
    if own_base:
        _base(folder, say, refresh=refresh)


def _locks(name: str) -> list[str]:
    text = (ROOT / "images" / f"{name}.Containerfile").read_text()
    return [source for source in copied(text) if source.startswith("requirements/")]


def _base(folder: Path, say: Say, *, refresh: bool) -> None:
    tag = f"localhost/penstock-base:{base.fingerprint()}"
    if not refresh and _buildah(folder, "images", "--quiet", "--filter", f"reference={tag}").strip():
        return
    say("base: unpacking Debian packages")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            root = base.make(Path(scratch))
        except subprocess.CalledProcessError as error:
            raise CannotBuild(f"base: `{' '.join(error.cmd)}` failed:\n{error.stderr[-2000:]}") from error
        container = _buildah(folder, "from", "scratch").strip()
        try:
            _buildah(folder, "add", "--quiet", container, str(root), "/")
            _buildah(folder, "config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
            _buildah(folder, "commit", "--quiet", f"--timestamp={EPOCH_S}", container, tag)
        finally:
            _buildah(folder, "rm", container)
    say(f"base: made in {time.monotonic() - started:.0f} s")


def _image(folder: Path, name: str, wanted: Inputs, archive: Path, say: Say) -> Built:
    full = f"penstock-{name}"
    reference = f"docker.io/library/{full}:{wanted.arguments['VERSION']}"
    say(f"{full}: building")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        identity, grown = Path(scratch) / "id", Path(scratch) / "archive.tar"
        arguments = [f"--build-arg={key}={value}" for key, value in wanted.arguments.items()]
        _buildah(
            folder, "bud", "--layers", "--format=oci", f"--timestamp={EPOCH_S}", f"--iidfile={identity}",
            f"--file=images/{name}.Containerfile", *arguments, str(ROOT),
        )  # fmt: skip
        _buildah(folder, "push", "--quiet", identity.read_text(), f"oci-archive:{grown}:{reference}")
        built = Built(reference, *measured(grown), wanted.arguments["REVISION"], wanted.fingerprint())
        archive.with_name(f"{full}.cdx.json").write_bytes(bill_of_materials(grown, full))
        grown.replace(archive)
    say(f"{full}: built in {time.monotonic() - started:.0f} s")
    return built


def measured(archive: Path) -> tuple[str, int, int]:
    """An OCI archive's digest, the bytes of its compressed layers, and the bytes of its layers unpacked."""
    with tarfile.open(archive) as tar:
        digest, layers = _layers(tar)
        unpacked = 0
        for layer in layers:
            with gzip.open(_blob(tar, layer["digest"])) as content:
                while chunk := content.read(1 << 20):
                    unpacked += len(chunk)
    return digest, sum(layer["size"] for layer in layers), unpacked


def bill_of_materials(archive: Path, full_name: str) -> bytes:
    """The bill of materials inside an archive: in its last layer."""
    with tarfile.open(archive) as tar:
        _, layers = _layers(tar)
        with tarfile.open(fileobj=_blob(tar, layers[-1]["digest"])) as layer:
            file = layer.extractfile(f"usr/share/sbom/{full_name}.cdx.json")
            assert file is not None, full_name
            return file.read()


def _layers(archive: tarfile.TarFile) -> tuple[str, list[dict[str, Any]]]:
    index = archive.extractfile("index.json")
    assert index is not None, archive.name
    digest = json.load(index)["manifests"][0]["digest"]
    return digest, json.load(_blob(archive, digest))["layers"]


def _blob(archive: tarfile.TarFile, digest: str) -> IO[bytes]:
    file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
    assert file is not None, digest
    return file


def _write(output: Path, images: Mapping[str, Built]) -> None:
    text = json.dumps({name: dataclasses.asdict(image) for name, image in sorted(images.items())}, indent=2)
    grown = output / f".{RECORD}"
    grown.write_text(text + "\n")
    grown.replace(output / RECORD)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _revision(paths: Sequence[Path]) -> tuple[str, str]:
    """The last commit that changed any of the paths, and its date; unknown outside a clone."""
    log = _git("log", "-1", "--format=%H %cI", "--", *map(str, paths))
    if not log:
        return "unknown", "unknown"
    commit, created = log.split()
    changed = _git("status", "--porcelain", "--", *map(str, paths))
    return f"{commit}{'-dirty' if changed else ''}", created


def _origin() -> str:
    origin = _git("config", "--get", "remote.origin.url") or ""
    return origin if origin.startswith("https://") and "@" not in origin else "unknown"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _programs(names: Sequence[str], say: Say) -> None:
    """Raise ``CannotBuild`` unless the programs are here; as root on Debian, install them."""
    absent = [name for name in names if shutil.which(name) is None]
    if os.geteuid() != 0:
        raise CannotBuild(
            "images are built as root here; as another user run `docker build` or `podman build` with the files in "
            "images/, which need nothing else"
        )
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise CannotBuild(f"needs {' and '.join(absent)}: install them, or build with docker, see images/README.md")
    say(f"installing {' and '.join(absent)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("apt-get", "update", "-qq"), ("apt-get", "install", "-qq", "--no-install-recommends", *absent)):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotBuild(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")


def _buildah(folder: Path, *arguments: str) -> str:
    storage = (f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", "--storage-driver=overlay")
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}
    done = subprocess.run(
        ("buildah", *storage, *arguments), env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise CannotBuild(f"`buildah {' '.join(arguments)}` ended with {done.returncode}:\n{said[-4000:]}")
    return done.stdout


@contextlib.contextmanager
def _locked(folder: Path, say: Say) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of images")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield folder
