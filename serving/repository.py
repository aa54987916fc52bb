"""The models of one server process: found on disk, loaded, swapped, unloaded.

A path given to the server may be

- a model file: ``digits.onnx``, named by its stem (or by ``--name`` when it is the only path);
- a folder with one model file, named by the folder;
- a folder of numbered versions, each with one model file: ``digits/1/model.onnx``; all are loaded and
  the highest number answers when a client names none;
- a folder of such models.

A model that cannot be loaded does not stop the others: it is listed as UNAVAILABLE with its reason.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from serving import loading, settings, threads
from serving.engines import artifact
from serving.errors import ArtifactRefused, NotReady, ServingError, UnknownModel
from serving.metrics import Metrics
from serving.models import Entry, State
from serving.scheduling import ModelQueue

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DEFAULT_VERSION = "1"


@dataclasses.dataclass(frozen=True)
class Found:
    """A model on disk: its versions' files, or why it has none that can be loaded."""

    name: str
    versions: dict[str, Path]
    problem: str = ""


@dataclasses.dataclass
class _Version:
    path: Path
    state: State = State.LOADING
    reason: str = ""
    queue: ModelQueue | None = None


def discover(paths: Sequence[Path], name: str | None) -> list[Found]:
    """The models under the paths, by name; ArtifactRefused when a path has none or a name comes twice."""
    found = [model for path in paths for model in _under(path)]
    if name is not None:
        if len(found) != 1:
            raise ArtifactRefused(
                f"--name {name} was given for {len(found)} models "
                f"({', '.join(model.name for model in found)}); give it with the path of one model"
            )
        found = [dataclasses.replace(found[0], name=name)]
    for position, model in enumerate(found):
        if not _NAME.fullmatch(model.name):
            raise ArtifactRefused(
                f"'{model.name}' is no model name (letters, digits, '.', '_' and '-', at most 128); use --name"
            )
        if model.name in [other.name for other in found[:position]]:
            raise ArtifactRefused(f"two of the paths hold a model named '{model.name}'; rename one of them")
    return sorted(found, key=lambda model: model.name)


def _under(path: Path) -> list[Found]:
    if not path.exists():
        raise ArtifactRefused(f"{path} does not exist; give a model file or a folder with models")
    known = artifact.suffix(path)
    if path.is_file() and known is not None:
        return [Found(path.name.removesuffix(known), {DEFAULT_VERSION: path})]
    if not path.is_dir():
        raise ArtifactRefused(f"{path} is no model; expected a folder, or a file {' or '.join(artifact.SUFFIXES)}")
    model = _model(path)
    if model is not None:
        return [model]
    models = [model for child in _folders(path) if (model := _model(child)) is not None]
    if not models:
        raise ArtifactRefused(f"{path} holds no model; expected a file {' or '.join(artifact.SUFFIXES)} in it")
    return models


def _model(folder: Path) -> Found | None:
    """The model that this folder is; None when it is something else."""
    name = folder.resolve().name
    try:
        if (file := _file(folder)) is not None:
            return Found(name, {DEFAULT_VERSION: file})
        versions = {child.name: _file(child) for child in _folders(folder) if child.name.isdecimal()}
    except ArtifactRefused as error:
        return Found(name, {}, str(error))
    files = {version: file for version, file in versions.items() if file is not None}
    return Found(name, files) if files else None


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _file(folder: Path) -> Path | None:
    files = sorted(child for child in folder.iterdir() if child.is_file() and artifact.suffix(child))
    if len(files) > 1:
        raise ArtifactRefused(f"{folder} holds {len(files)} models ({files[0].name}, {files[1].name}); keep one")
    return files[0] if files else None


class Repository:
    """Models loaded from disk. All methods are for the event loop's thread."""

    def __init__(self, paths: Sequence[Path], name: str | None, metrics: Metrics, owner: settings.Document) -> None:
        self._paths = paths
        self._name = name
        self._metrics = metrics
        self._owner = owner
        self._models: dict[str, dict[str, _Version]] = {}
        self._problems: dict[str, str] = {}
        self._defaults: dict[str, ModelQueue] = {}
        self._live: set[ModelQueue] = set()
        self._lock = asyncio.Lock()
        self._started = False

    def find(self, name: str, version: str) -> ModelQueue:
        """The queue of a version, of the highest one that is ready for ``""``."""
        if not version and (default := self._defaults.get(name)) is not None:
            return default
        versions = self._models.get(name)
        if versions is None:
            raise UnknownModel(name)
        if not version:
            if not versions:
                raise NotReady(f"model '{name}' is not ready: {self._problems.get(name, 'it has no version')}")
            version = max(versions, key=int)
        found = versions.get(version)
        if found is None:
            raise UnknownModel(name, f"has no version '{version}'; it has {', '.join(sorted(versions, key=int))}")
        if found.queue is None:
            raise NotReady(f"model '{name}' version '{version}' is not ready: {found.reason or found.state.lower()}")
        return found.queue

    def index(self) -> list[Entry]:
        """Every version; a model without any is listed with the version ``""``."""
        entries = []
        for name, versions in sorted(self._models.items()):
            if not versions:
                entries.append(Entry(name, "", State.UNAVAILABLE, self._problems.get(name, "unloaded")))
            for version in sorted(versions, key=int):
                found = versions[version]
                entries.append(Entry(name, version, found.state, found.reason))
        return entries

    def is_ready(self) -> bool:
        """Ready once every model was tried and at least one of them answers."""
        return self._started and bool(self._defaults)

    async def start(self) -> None:
        """Loads everything; ArtifactRefused when nothing can be served."""
        models = await threads.call(discover, self._paths, self._name)
        async with self._lock:
            for model in models:
                await self._load(model)
        self._started = True
        if not self._defaults:
            raise ArtifactRefused("; ".join(entry.reason for entry in self.index()))

    async def load(self, name: str) -> None:
        """Looks at the disk again and loads the model; ArtifactRefused leaves what served before in place."""
        async with self._lock:
            found = await threads.call(discover, self._paths, self._name)
            model = next((model for model in found if model.name == name), None)
            if model is None:
                raise UnknownModel(name, "is not among the paths given to this server")
            problems = await self._load(model)
            if problems:
                raise ArtifactRefused(f"model '{name}' was not loaded: {'; '.join(problems)}")

    async def unload(self, name: str) -> None:
        """Stops serving the model, after the requests it has."""
        async with self._lock:
            versions = self._models.get(name)
            if versions is None:
                raise UnknownModel(name)
            self._defaults.pop(name, None)
            for found in versions.values():
                queue, found.queue = found.queue, None
                found.state, found.reason = State.UNAVAILABLE, "unloaded"
                if queue is not None:
                    await self._close(queue)

    async def _close(self, queue: ModelQueue) -> None:
        await queue.close()
        self._live.discard(queue)

    def tick(self, now: float) -> None:
        """Keeps the time limits of running inferences."""
        for queue in self._live:
            queue.tick(now)

    async def _load(self, model: Found) -> list[str]:
        """Loads each version beside the one that serves, and swaps those that can answer."""
        versions = self._models.setdefault(model.name, {})
        self._problems[model.name] = model.problem
        problems = [model.problem] if model.problem else []
        replaced: list[ModelQueue] = []
        for version, path in model.versions.items():
            found = versions.setdefault(version, _Version(path))
            if found.queue is None:
                found.state, found.reason = State.LOADING, ""
            try:
                said = settings.of(path, self._owner)
                loaded = await threads.call(loading.load, path, said.limits.timeout_s)
            except ServingError as error:
                problems.append(str(error))
                found.reason = str(error)
                if found.queue is None:
                    found.state = State.UNAVAILABLE
                continue
            counters = self._metrics.of(model.name, version)
            if found.queue is not None:
                replaced.append(found.queue)
            found.queue = ModelQueue(model.name, version, loaded, counters, said)
            self._live.add(found.queue)
            found.state, found.reason = State.READY, ""
        if not problems:
            gone = [versions.pop(version) for version in set(versions) - set(model.versions)]
            replaced += [found.queue for found in gone if found.queue is not None]
        ready = [version for version, found in versions.items() if found.queue is not None]
        if ready and (default := versions[max(ready, key=int)].queue) is not None:
            self._defaults[model.name] = default
        for queue in replaced:
            await self._close(queue)
        return problems
