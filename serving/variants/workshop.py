"""Where a build works: what it has fetched, the stages it runs, and how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from serving.artifacts import storage
from serving.errors import ArtifactRefused
from serving.variants import datasets, stages, toolchains
from serving.variants.recipe import Asked, Location
from serving.variants.stages import Made, Stage, Stages

_TOOLS = (
    "penstock",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "openvino",
    "ai-edge-litert",
    "pillow",
    "pyarrow",
    "scipy",
)
_TELLING = 0.05
"""Of the whole, from where on an estimate of the rest is worth telling."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a build is about."""

    variant: str
    """Empty where it is about all of them."""
    stage: str
    share: float
    """Of the whole build, 0 to 1."""
    left_s: float | None
    """Estimated from what similar steps took; None before there was one."""


class Workshop:
    """Of one build, below ``folder``. ``steps``: how many it will take; ``told`` hears how far it is."""

    def __init__(
        self,
        asked: Asked,
        folder: Path,
        limits: stages.Limits,
        access: storage.Access,
        steps: float,
        told: Callable[[Progress], None],
    ) -> None:
        self.tools = {name: found for name in _TOOLS if (found := version(name))}
        """Versions of what makes and measures, by package."""
        self._asked = asked
        self._folder = folder
        self._limits = limits
        self._access = access
        self._tell = told
        self._steps, self._done = steps, 0.0
        self._began = time.monotonic()
        self._stages: Stages | None = None
        self._uris: dict[Path, str] = {}
        """Where what was fetched came from."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Stages can be made in it; another build of the same folder waits."""
        waiting = "waiting for another build"
        with stages.opened(self._folder / "stages", self._limits, lambda: self._say("", waiting)) as found:
            self._stages = found
            yield

    def _say(self, variant: str, stage: str, share: float = 0.0) -> None:
        done = min(1.0, (self._done + share) / self._steps)
        took_s = time.monotonic() - self._began
        self._tell(Progress(variant, stage, done, took_s * (1 - done) / done if done > _TELLING else None))

    def fetched(self, what: str, location: Location) -> Path:
        """The one file of an artifact, from the store or fetched into it; of some datasets the folder."""
        self._say("", f"fetching {what}")
        found = storage.fetch(location.uri, location.digest, store=self._folder / "artifacts", access=self._access)
        files = sorted(path for path in found.path.rglob("*") if path.is_file())
        chosen = [path for path in files if path.suffix == ".onnx"] if what == "source" and len(files) > 1 else files
        if what in ("dataset", "samples") and len(files) > 1 and datasets.is_folder(found.path):
            chosen = [found.path]
        if len(chosen) != 1:
            raise ArtifactRefused(f"{location.uri} has {len(files)} files, expected one {what}; name the file itself")
        self._done += 1
        self._uris[chosen[0]] = location.uri
        return chosen[0]

    def made(
        self,
        variant: str,
        kind: str,
        told: Any,
        inputs: Mapping[str, Path],
        *,
        label: str = "",
        also: str = "",
        toolchain: str = "",
        steps: float = 1.0,
    ) -> Made:
        """The result of a stage, from before or made now; the same errors as ``Stages.made``.

        Beside what its arguments say it depends on ``also``. ``steps``: how many usual ones it takes as long as.
        """
        stage = self._stage(kind, told, inputs, also, toolchain)
        assert self._stages is not None
        if stage.toolchain and not self._stages.has(stage):
            size = toolchains.SIZES[stage.toolchain]
            note = f"installing toolchain {stage.toolchain} ({size}, once)"
            toolchains.python(stage.toolchain, lambda: self._say(variant, note))
        label = label or kind
        self._say(variant, label)
        try:
            found = self._stages.made(stage, lambda share: self._say(variant, label, share * steps))
        except (ArtifactRefused, stages.StageFailed) as error:
            raise type(error)(self._as_named(str(error))) from error
        self._done += steps
        return found

    def _stage(self, kind: str, told: Any, inputs: Mapping[str, Path], also: str, toolchain: str) -> Stage:
        # Of a toolchain its lock says all but which Penstock tells it what to do.
        said = (
            {toolchain: toolchains.digest(toolchain), "penstock": self.tools["penstock"]} if toolchain else self.tools
        )
        tools = json.dumps(said, sort_keys=True)
        contract = self._asked.contract if {"samples", "dataset"} & inputs.keys() else {}
        return Stage(kind, told, inputs, (*map(_digest, inputs.values()), also, tools), toolchain, contract)

    def _as_named(self, text: str) -> str:
        """``text`` with files as who asked for them names them, not where they were fetched to."""
        for path, uri in self._uris.items():
            text = text.replace(str(path), uri.removeprefix("file://"))
        return text


def version(tool: str) -> str:
    """Empty where it is not installed, as engines need not be."""
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _digest(path: Path) -> str:
    """Of a file whose folder is named by its content: an artifact's, or a stage's."""
    return path.parent.name + "/" + path.name
