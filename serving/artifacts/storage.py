r"""Copies a model from where it is kept to this machine: whole and as promised, or not at all.

The digest of a file is the SHA-256 of its bytes. The digest of a folder is the SHA-256 of the text of
its files, one sorted line each, ``<sha256 of the bytes>  <path in the folder>\n``: what ``sha256sum``
prints, so anybody can check it. Nothing is unpacked, and a folder with links in it is refused.

A copy grows in a hidden folder beside its place and is renamed into it when its digest is right. The
hidden folder is locked while its process lives, so that the next fetch can tell an abandoned one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, cast

import fsspec

from serving.artifacts.cached import Cache
from serving.errors import ArtifactRefused, StorageUnavailable

_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TEMPORARY = ".fetch-"


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What lies on this machine now."""

    digest: str
    path: Path
    """The folder with the file, or with the folder's files."""
    bytes: int
    files: int


@dataclasses.dataclass(frozen=True)
class _File:
    sha256: str
    path: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Access:
    """How sources are reached, beyond what the clients of stores find in the environment."""

    docker_config: Path | None = None
    """Folder of the ``config.json`` with the credentials of OCI registries."""
    plain_http: frozenset[str] = frozenset()
    """Registries (``HOST`` or ``HOST:PORT``) that are spoken to without TLS."""
    cache: Cache | None = None
    """Where artifacts are asked for before their source, and offered after it."""
    claims: Path | None = None
    """Folder with the volumes that ``pvc://CLAIM/PATH`` names, each in a folder called as its claim."""


def fetch(
    uri: str, digest: str | None, to: Path | None = None, store: Path | None = None, access: Access = Access()
) -> Fetched:
    """Copies what ``uri`` names into the folder ``to``, or into ``store/sha256-HEX``.

    ``uri`` is a path, an artifact of an ``oci://`` registry, or any URI that fsspec reads. A store that already
    has the digest is checked and not filled again. ArtifactRefused when there is nothing, when the digest is
    another one, or when a folder holds links; StorageUnavailable when storage or disk fail.
    """
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ArtifactRefused(f"the digest '{digest}' is none; expected sha256: and 64 lower-case hex digits")
    with _storage_errors(uri):
        if to is not None:
            return _into(to, uri, digest, access)
        assert store is not None
        return _stored(store, uri, digest, access)


def _into(target: Path, uri: str, digest: str | None, access: Access) -> Fetched:
    """Into a folder that may be a mount point, which cannot be replaced: its content is."""
    target.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    with _temporary(target) as temporary:
        files, found = _obtained(uri, digest, temporary, access)
        names = {path.name for path in temporary.iterdir()}
        others = sorted({path.name for path in target.iterdir()} - names - {temporary.name})
        if others:
            raise ArtifactRefused(
                f"{target} already holds {', '.join(others[:3])}; give a new or an empty folder to copy into"
            )
        for name in sorted(names):
            if (target / name).is_dir():
                shutil.rmtree(target / name)
            os.replace(temporary / name, target / name)
    return Fetched(found, target, sum(file.bytes for file in files), len(files))


def _stored(store: Path, uri: str, digest: str | None, access: Access) -> Fetched:
    store.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(store)
    if digest is not None and (there := _there(store, digest)) is not None:
        return there
    with _temporary(store) as temporary:
        files, found = _obtained(uri, digest, temporary, access)
        target = _place(store, found)
        if _there(store, found) is None:
            if target.exists():
                shutil.rmtree(target)
            with contextlib.suppress(FileExistsError):  # another fetch was first with the same content
                _rename(temporary, target)
    return Fetched(found, target, sum(file.bytes for file in files), len(files))


def _obtained(uri: str, digest: str | None, folder: Path, access: Access) -> tuple[list[_File], str]:
    """The files in ``folder``, from the cache or from the source, and their digest."""
    if access.cache and digest:
        cached = access.cache.get(digest, folder, lambda: _name(_opened(uri, access)[1]))
        if cached is not None:
            files = [_File(sha256, path, _path(folder, path).stat().st_size) for path, sha256 in cached.items()]
            return files, _checked(uri, files, digest)
    files = _copy(uri, folder, access)
    found = _checked(uri, files, digest)
    if access.cache:
        listing = None if files[0].path == "" else _listing(files)
        access.cache.offer({file.sha256: _path(folder, file.path) for file in files}, listing)
    return files, found


def _path(folder: Path, path: str) -> Path:
    """Where a copied file lies: one that is no part of a folder is alone."""
    return folder / path if path else next(folder.iterdir())


def _name(root: str) -> str:
    """What a single file is called, from its path in storage."""
    return PurePosixPath(root.split("?")[0].rstrip("/")).name


def _place(store: Path, digest: str) -> Path:
    return store / digest.replace(":", "-")


def _there(store: Path, digest: str) -> Fetched | None:
    """What the store holds under a digest, if that is what it is."""
    target = _place(store, digest)
    if not target.is_dir():
        return None
    files = [
        _File(_sha256(path), path.relative_to(target).as_posix(), path.stat().st_size)
        for path in sorted(target.rglob("*"))
        if path.is_file()
    ]
    if digest not in (_digest_of_folder(files), f"sha256:{files[0].sha256}" if len(files) == 1 else ""):
        return None
    return Fetched(digest, target, sum(file.bytes for file in files), len(files))


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(target) from error
        raise


def _checked(uri: str, files: list[_File], digest: str | None) -> str:
    single = len(files) == 1 and files[0].path == ""
    found = f"sha256:{files[0].sha256}" if single else _digest_of_folder(files)
    if digest is not None and digest != found:
        raise ArtifactRefused(
            f"{uri} has the digest {found}, expected {digest}; pin the digest of what is there, or restore the file"
        )
    return found


def _digest_of_folder(files: list[_File]) -> str:
    return f"sha256:{hashlib.sha256(_listing(files).encode()).hexdigest()}"


def _listing(files: list[_File]) -> str:
    return "".join(sorted(f"{file.sha256}  {file.path}\n" for file in files))


def _copy(uri: str, folder: Path, access: Access) -> list[_File]:
    """Copies everything below ``uri``; a single file has the path ``""``."""
    filesystem, root = _opened(uri, access)
    local = "file" in filesystem.protocol if isinstance(filesystem.protocol, tuple) else filesystem.protocol == "file"
    if local:
        root = os.path.realpath(root)
    if filesystem.info(root)["type"] == "file":  # not isfile(), which takes any failure for a no
        copied = _copy_file(filesystem, root, folder / _name(root))
        return [dataclasses.replace(copied, path="")]
    sources = _local_files(root) if local else sorted(filesystem.find(root))
    if not sources:
        raise ArtifactRefused(f"{uri} holds no file; check the URI")
    files = []
    for source in sources:
        path = PurePosixPath(source.removeprefix(root).lstrip("/"))
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ArtifactRefused(f"{uri} lists '{source}', which is outside of it; copy the model elsewhere first")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        files.append(dataclasses.replace(_copy_file(filesystem, source, target), path=path.as_posix()))
    return files


def _opened(uri: str, access: Access) -> tuple[Any, str]:
    """A file system and where in it the artifact begins."""
    if access.claims and uri.startswith("pvc://"):
        uri = f"file://{access.claims}/{uri.removeprefix('pvc://')}"
    if not uri.startswith("oci://"):
        return cast(tuple[Any, str], fsspec.core.url_to_fs(uri))
    from serving.artifacts import oci  # its HTTP client comes with an extra

    artifact = oci.Artifact(uri, access.docker_config, access.plain_http)
    return artifact, artifact.root


def _local_files(root: str) -> list[str]:
    """The files below a folder on this machine; ArtifactRefused at the first one that is not plain."""
    found = []
    for folder, folders, names in os.walk(root):
        for name in sorted(folders + names):
            path = os.path.join(folder, name)
            mode = os.lstat(path)
            if stat.S_ISDIR(mode.st_mode):
                continue
            if not stat.S_ISREG(mode.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode.st_mode) else "no regular file"
                raise ArtifactRefused(f"{path} is {kind}; put a copy of the file in its place")
            if mode.st_nlink != 1:
                raise ArtifactRefused(f"{path} is a hard link; put a copy of the file in its place")
            found.append(path)
    return sorted(found)


def _copy_file(filesystem: Any, source: str, target: Path) -> _File:
    digest, size = hashlib.sha256(), 0
    with filesystem.open(source, "rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
    return _File(digest.hexdigest(), target.name, size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """A locked folder in ``parent``, removed at the end however that comes, SIGTERM included."""
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    previous = signal.signal(signal.SIGTERM, _end)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.chmod(0o755)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _remove_abandoned(parent: Path) -> None:
    """Removes what a killed fetch left: its folder is there and nobody holds its lock."""
    for folder in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):  # held by a fetch that is running
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def _unavailable(error: FileNotFoundError) -> BaseException | None:
    """What really happened, where fsspec's HTTP file system took a failure of the server for a missing file."""
    cause = error.__cause__
    failed = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return cause if failed or getattr(cause, "status", 404) != 404 else None


@contextlib.contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (ArtifactRefused, StorageUnavailable):
        raise
    except FileNotFoundError as error:
        if (behind := _unavailable(error)) is not None:
            raise StorageUnavailable(
                f"{uri} could not be copied: {behind}; check storage and access and try again"
            ) from error
        raise ArtifactRefused(f"{uri} does not exist; check the URI") from error
    except (ImportError, ValueError) as error:
        raise ArtifactRefused(f"{uri} cannot be read here ({error}); use a path or a URI of a known kind") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; free some space" if full else f"{error.strerror or error}; check storage and access"
        raise StorageUnavailable(f"{uri} could not be copied: {why} and try again") from error
    except Exception as error:  # the clients behind fsspec raise errors of their own
        raise StorageUnavailable(
            f"{uri} could not be copied: {type(error).__name__}: {error}; check storage and access and try again"
        ) from error
