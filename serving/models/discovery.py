"""Models on disk: which there are under the paths given to a server.

A path may be

- a model file: ``digits.onnx``, named by its stem (or by ``--name`` when it is the only path);
- a folder with one model file, named by the folder;
- a folder of numbered versions, each with one model file: ``digits/1/model.onnx``;
- a folder of such models.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from serving.engines import artifact
from serving.errors import ArtifactRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DEFAULT_VERSION = "1"


@dataclasses.dataclass(frozen=True)
class Found:
    """A model on disk: its versions' files, or why it has none that can be loaded."""

    name: str
    versions: dict[str, Path]
    problem: str = ""


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
