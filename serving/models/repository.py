"""The models of one server process: loaded, swapped, unloaded.

All versions of a model are loaded; the highest number answers when a client names none. A model that cannot be
loaded does not stop the others: it is listed as UNAVAILABLE with its reason.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from serving import settings, threads
from serving.engines.base import Engine
from serving.errors import ArtifactRefused, NotReady, ServingError, UnknownModel
from serving.models import discovery, loading
from serving.models.base import Entry, State, not_served
from serving.models.budget import Budget, Evictable
from serving.models.discovery import Found
from serving.models.loading import Loaded
from serving.scheduling import Admission, ModelQueue
from serving.scheduling.answers import AnsweringQueue, Answers
from serving.settings import Settings
from serving.telemetry.metrics import Metrics, ModelCounters

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class _Version:
    path: Path
    state: State = State.LOADING
    reason: str = ""
    problem: str = ""
    """What the queue said last of why it cannot answer."""
    queue: ModelQueue | None = None
    engine: Engine | None = None

    @property
    def note(self) -> str:
        """What is worth knowing of a version that is ready."""
        away = self.queue is not None and isinstance(self.engine, Evictable) and not self.engine.is_loaded
        return "it made room for other models and is loaded again when it is asked" if away else ""


class Repository:
    """Models loaded from disk. All methods are for the event loop's thread."""

    computes = True

    def __init__(
        self,
        paths: Sequence[Path],
        name: str | None,
        metrics: Metrics,
        owner: settings.Document,
        admission: Admission,
        below: settings.Document | None = None,
        budget: Budget | None = None,
        answers: Answers | None = None,
        shared: Path | None = None,
    ) -> None:
        self._paths = paths
        self._name = name
        self._metrics = metrics
        self._owner = owner
        self._admission = admission
        self._below = below
        self._budget = budget
        self._answers = answers
        self._shared = shared
        self._models: dict[str, dict[str, _Version]] = {}
        self._problems: dict[str, str] = {}
        self._defaults: dict[str, ModelQueue] = {}
        self._live: set[ModelQueue] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One change of a model at a time; another model need not wait for it."""
        self._started = False

    def find(self, name: str, version: str) -> ModelQueue:
        """The queue of a version, of the highest one that is ready for ``""``."""
        if not version and (default := self._defaults.get(name)) is not None:
            return default
        versions = self._models.get(name)
        if versions is None:
            raise not_served(name, self._models)
        if not version:
            if not versions:
                raise NotReady(f"model '{name}' is not ready: {self._problems.get(name, 'it has no version')}")
            version = max(versions, key=int)
        found = versions.get(version)
        if found is None:
            raise UnknownModel(name, f"has no version '{version}'; it has {', '.join(sorted(versions, key=int))}")
        if found.queue is None or found.state is not State.READY:
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
                entries.append(Entry(name, version, found.state, found.reason or found.note))
        return entries

    def is_ready(self) -> bool:
        """Ready once every model was tried and at least one of them answers."""
        return self._started and bool(self._defaults)

    def hung(self) -> str:
        """A model whose engine does not stop, where no other version or model is left that answers."""
        loaded = [found for versions in self._models.values() for found in versions.values() if found.queue]
        if any(found.state is State.READY for found in loaded):
            return ""
        stuck = [found.queue for found in loaded if found.queue is not None and found.queue.hung and not found.note]
        return f"model '{stuck[0].name}' version '{stuck[0].version}': {stuck[0].problem}" if stuck else ""

    async def start(self) -> None:
        """Loads everything; ArtifactRefused when nothing can be served."""
        models = await threads.call(discovery.discover, self._paths, self._name)
        for model in models:
            async with self._locks[model.name]:
                await self._load(model)
        self._started = True
        if not self._defaults:
            raise ArtifactRefused("; ".join(entry.reason for entry in self.index()))

    async def load(self, name: str) -> None:
        """Looks at the disk again and loads the model; ArtifactRefused leaves what served before in place."""
        await self._on_disk(name)  # or any name that somebody thinks of would get a lock
        async with self._locks[name]:
            problems = await self._load(await self._on_disk(name))
            if problems:
                raise ArtifactRefused(f"model '{name}' was not loaded: {'; '.join(problems)}")

    async def _on_disk(self, name: str) -> Found:
        found = await threads.call(discovery.discover, self._paths, self._name)
        model = next((model for model in found if model.name == name), None)
        if model is None:
            raise UnknownModel(name, "is not among the paths given to this server")
        return model

    async def unload(self, name: str) -> None:
        """Stops serving the model, after the requests it has."""
        versions = self._models.get(name)
        if versions is None:
            raise not_served(name, self._models)
        async with self._locks[name]:
            self._defaults.pop(name, None)
            for found in versions.values():
                queue, found.queue = found.queue, None
                found.state, found.reason = State.UNAVAILABLE, "unloaded"
                if queue is not None:
                    await self._close(queue)
                    _log.info("model %s version %s unloaded", queue.name, queue.version)

    async def _close(self, queue: ModelQueue) -> None:
        await queue.close()
        self._live.discard(queue)

    def tick(self, now: float) -> None:
        """Keeps the time limits of running inferences, and notices which models cannot answer now."""
        for queue in self._live:
            queue.tick(now)
        for name, versions in self._models.items():
            for found in versions.values():
                if found.queue is not None and found.queue.problem != found.problem:
                    found.problem = found.reason = found.queue.problem
                    found.state = State.UNAVAILABLE if found.problem else State.READY
                    self._choose_default(name)

    def _choose_default(self, name: str) -> None:
        """The highest version that is loaded answers, or none while it cannot: no other takes its place unasked."""
        loaded = [version for version, found in self._models[name].items() if found.queue is not None]
        self._defaults.pop(name, None)
        if loaded:
            highest = self._models[name][max(loaded, key=int)]
            if highest.queue is not None and highest.state is State.READY:
                self._defaults[name] = highest.queue

    def _queue(self, name: str, version: str, loaded: Loaded, counters: ModelCounters, said: Settings) -> ModelQueue:
        if said.cache and self._answers is not None:
            return AnsweringQueue(name, version, loaded, counters, said, self._admission, self._answers)
        return ModelQueue(name, version, loaded, counters, said, self._admission)

    def _loaded(self, path: Path, said: Settings, counters: ModelCounters) -> Loaded:
        def load() -> Loaded:
            return loading.load(path, said, shared=self._shared)

        return load() if self._budget is None else self._budget.admit(path, load, counters, said.limits.timeout_s)

    async def _load(self, model: Found) -> list[str]:
        """Loads each version beside the one that serves, and swaps those that can answer."""
        versions = self._models.setdefault(model.name, {})
        self._problems[model.name] = model.problem
        problems = [model.problem] if model.problem else []
        if model.problem:
            _log.warning("model %s was not loaded: %s", model.name, model.problem)
        replaced: list[ModelQueue] = []
        for version, path in model.versions.items():
            found = versions.setdefault(version, _Version(path))
            if found.queue is None:
                found.state, found.reason = State.LOADING, ""
            counters = self._metrics.of(model.name, version)
            try:
                said = settings.of(path, self._owner, self._below)
                loaded = await threads.call(self._loaded, path, said, counters)
            except ServingError as error:
                problems.append(str(error))
                found.reason = str(error)
                kept = "" if found.queue is None else ", and what served before goes on"
                _log.warning("model %s version %s was not loaded%s: %s", model.name, version, kept, error)
                if found.queue is None:
                    found.state = State.UNAVAILABLE
                continue
            counters.loads += 1
            done = "loaded" if found.queue is None else "swapped"
            _log.info("model %s version %s %s: it %s", model.name, version, done, loaded.finding)
            if found.queue is not None:
                replaced.append(found.queue)
            found.queue = self._queue(model.name, version, loaded, counters, said)
            found.engine = loaded.engine
            self._live.add(found.queue)
            found.state, found.reason, found.problem = State.READY, "", ""
        if not problems:
            gone = [versions.pop(version) for version in set(versions) - set(model.versions)]
            gone_queues = [found.queue for found in gone if found.queue is not None]
            replaced += gone_queues
            for queue in gone_queues:
                _log.info("model %s version %s unloaded: it is not on the disk any more", queue.name, queue.version)
        self._choose_default(model.name)
        for queue in replaced:
            await self._close(queue)
        return problems
