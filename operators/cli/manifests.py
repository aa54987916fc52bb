"""YAML files to objects: every document is read, completed and checked before any is applied.

Paths of this machine are completed here, because only here it is known what they are relative to: a plain
path or a relative ``file:`` URI means a place relative to the YAML file. What lies there is pinned by its
digest, so that the object names exactly the bytes there were when it was applied, and applying again after a
change makes a new revision.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from operators.api.base import APIObject
from operators.api.errors import InvalidObject, OperatorError, Path
from operators.api.kinds import dotted, parse
from operators.api.model import Model
from operators.cli import kinds
from operators.cli.kinds import Kind
from operators.cli.places import Place
from operators.planning import windows

STDIN = "-"


class BadManifest(OperatorError):
    """A file cannot be read as objects; the message names file, document, line and next step."""


class _NotThere(BadManifest):
    """A file that an object names is not there."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One object as it stands in a file, completed and found to be valid."""

    kind: Kind
    namespace: str
    name: str
    data: dict[str, Any]
    """What was written, without defaults: fields that were left out may belong to somebody else."""


def load(paths: Sequence[str], namespace: str) -> list[Manifest]:
    """All objects in files, folders of ``*.yaml`` and ``-`` (standard input), with local artifacts pinned.

    ``namespace`` is that of objects which name none.

    Raises:
        BadManifest: for the first document that cannot be used.
    """
    return [_manifest(data, where, folder, namespace) for data, where, folder in _documents(paths)]


def names(paths: Sequence[str], namespace: str) -> list[tuple[Kind, str, str]]:
    """Kind, namespace and name of all objects in the files; nothing else of them is looked at."""
    found = []
    for data, where, _ in _documents(paths):
        metadata = data.get("metadata")
        meta = metadata if isinstance(metadata, dict) else {}
        kind = kinds.find(str(data.get("kind")))
        if kind is None or not isinstance(meta.get("name"), str):
            raise BadManifest(f"{where}: kind and metadata.name are needed to tell which object is meant")
        found.append((kind, str(meta.get("namespace", namespace)), meta["name"]))
    return found


def digest(path: pathlib.Path) -> str:
    """``sha256:`` of a file's bytes, or of the sorted lines ``sha256sum`` prints for a folder's files."""
    if path.is_file():
        return f"sha256:{_sha256(path)}"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = sorted(f"{_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _documents(paths: Sequence[str]) -> Iterator[tuple[dict[str, Any], Place, pathlib.Path]]:
    """Each document, where it stands, and the folder its relative paths begin at."""
    for given in paths:
        empty = True
        for name, file in _files(given):
            try:
                text = sys.stdin.read() if file is None else file.read_text()
            except OSError as error:
                raise BadManifest(f"{name}: cannot be read: {error.strerror or error}") from error
            except UnicodeDecodeError as error:
                raise BadManifest(
                    f"{name}: is no text; give a YAML of a Model, which names such a file in spec.source.uri"
                ) from error
            folder = pathlib.Path.cwd() if file is None else file.absolute().parent
            for data, where in _parsed(text, name):
                empty = False
                yield data, where, folder
        if empty:
            raise BadManifest(
                f"{'standard input' if given == STDIN else given}: holds no object; "
                "give YAML with apiVersion, kind, metadata and spec"
            )


def _files(given: str) -> list[tuple[str, pathlib.Path | None]]:
    if given == STDIN:
        return [("standard input", None)]
    path = pathlib.Path(given)
    if not path.exists():
        raise BadManifest(
            f"{given}: no such file or folder; give a YAML file, a folder of them, or - for standard input"
        )
    if not path.is_dir():
        return [(given, path)]
    inside = sorted(file for suffix in ("*.yaml", "*.yml") for file in path.glob(suffix))
    if not inside:
        raise BadManifest(f"{given}: the folder has no *.yaml file; give the file itself, or another folder")
    return [(str(file), file) for file in inside]


def _parsed(text: str, name: str) -> Iterator[tuple[dict[str, Any], Place]]:
    loader = yaml.SafeLoader(text)
    number = 0
    try:
        while loader.check_node():
            number += 1
            node = loader.get_node()
            assert node is not None
            data = loader.construct_document(node)
            where = Place(name, number, node)
            if data is None:
                continue
            if not isinstance(data, dict):
                raise BadManifest(f"{where}: expected an object (apiVersion, kind, metadata, spec), got {data!r:.80}")
            yield data, where
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BadManifest(f"{name}, document {max(number, 1)}{line}: not YAML: {problem}") from error
    finally:
        loader.dispose()


def _manifest(data: dict[str, Any], where: Place, folder: pathlib.Path, namespace: str) -> Manifest:
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    completed = dict(data)
    try:
        if "spec" in data:
            completed["spec"] = _completed(_spelled_out(data["spec"]), ("spec",), folder)
        kind = kinds.find(str(data.get("kind")))
        if kind is not None and kind.namespaced and isinstance(metadata, dict):
            completed["metadata"] = {"namespace": namespace} | metadata
        parsed = parse(completed)
        _check_timezones(parsed)
    except _NotThere as error:
        raise BadManifest(f"{where.of([error.path])}: {data.get('kind')} {name!r}: {error}") from error
    except OSError as error:
        raise BadManifest(f"{where}: {data.get('kind')} {name!r}: {error.filename}: {_words(error)}") from error
    except InvalidObject as error:
        raise BadManifest(f"{where.of(error.paths)}: {error}") from error
    known, meta = kinds.of(parsed.kind), parsed.metadata
    return Manifest(known, meta.namespace if known.namespaced else "", meta.name, completed)


def _check_timezones(parsed: APIObject) -> None:
    """Refuse what only a database of time zones knows; stored objects are read without, for it may be another one."""
    if not isinstance(parsed, Model) or parsed.spec.rollout is None:
        return
    for place, window in enumerate(parsed.spec.rollout.windows):
        if unknown := windows.unknown([window]):
            path = ("spec", "rollout", "windows", place, "timezone")
            raise InvalidObject(f"Model {parsed.metadata.name!r}: {dotted(path)}: {unknown}", [path])


def _spelled_out(spec: Any) -> Any:
    """``variants: auto`` is short for the source and a search."""
    if isinstance(spec, dict) and spec.get("variants") == "auto":
        return spec | {"variants": [{"name": "source"}, {"name": "auto", "search": {}}]}
    return spec


def _completed(value: Any, path: Path, folder: pathlib.Path) -> Any:
    """``value`` with every location on this machine absolute and pinned. Only locations have a ``uri``."""
    if isinstance(value, list):
        return [_completed(item, (*path, index), folder) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    inner = {key: _completed(item, (*path, key), folder) for key, item in value.items()}
    file = _local_path(value.get("uri"), folder)
    if file is None:
        return inner
    if not file.exists():
        at = (*path, "uri")
        raise _NotThere(f"{dotted(at)}: {file} does not exist; correct the path or put the file there", at)
    return inner | {"uri": f"file://{file}", "digest": value.get("digest") or digest(file)}


def _local_path(uri: Any, folder: pathlib.Path) -> pathlib.Path | None:
    if not isinstance(uri, str) or not uri:
        return None
    if uri.startswith("file:"):
        uri = uri.removeprefix("file:").removeprefix("//")
    elif "://" in uri:
        return None
    return pathlib.Path(os.path.normpath(folder / pathlib.Path(uri).expanduser()))


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
