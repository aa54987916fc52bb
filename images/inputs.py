"""What an image is made of: its base, the files that its Containerfile copies, and what its labels say of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from images import base
from images.storage import ROOT

NAMES = tuple(sorted(path.name.partition(".")[0] for path in Path(__file__).parent.glob("*.Containerfile")))


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What decides an image: ``files`` below the repository's root, the base's name, the version, and labels.

    Labels are given to a build and not written in the Containerfile as arguments: buildah would take a line with an
    argument from its cache, whatever the argument is.
    """

    files: tuple[Path, ...]
    base: str
    version: str
    labels: Mapping[str, str]

    def fingerprint(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha256(json.dumps([self.base, self.version, dict(self.labels)]).encode())
        for file in self.files:
            content = file.read_bytes()
            digest.update(f"\n{file.relative_to(ROOT)} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def of(name: str, base_image: str) -> Inputs:
    """The inputs of the image ``penstock-NAME``. A base made here is one of them."""
    paths = [containerfile(name), *(ROOT / source for source in copied(containerfile(name).read_text()))]
    if base_image == base.reference():
        paths.append(Path(base.__file__))
    revision, created = _revision(paths)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = {"revision": revision, "created": created, "source": _origin(), "base.name": base_image}
    labels = {f"org.opencontainers.image.{key}": value for key, value in said.items() if value}
    return Inputs(
        tuple(sorted({file for path in paths for file in _files(path)})), base_image, project["version"], labels
    )


def containerfile(name: str) -> Path:
    """The file that builds an image."""
    return ROOT / "images" / f"{name}.Containerfile"


def locks() -> list[Path]:
    """The locks from which any image installs."""
    sources = {source for name in NAMES for source in copied(containerfile(name).read_text())}
    return sorted(ROOT / source for source in sources if source.endswith(".txt"))


def copied(text: str) -> list[str]:
    """The paths that a Containerfile copies from its context."""
    lines = re.findall(r"^COPY +(?!--from)(.+)$", text, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _revision(paths: Sequence[Path]) -> tuple[str, str]:
    """The last commit that changed any of the paths, and its date; empty outside a clone."""
    log = _git("log", "-1", "--format=%H %cI", "--", *map(str, paths))
    if not log:
        return "", ""
    commit, created = log.split()
    changed = _git("status", "--porcelain", "--", *map(str, paths))
    return f"{commit}{'-dirty' if changed else ''}", created


def _origin() -> str:
    """The address of the source, where it may be published."""
    origin = _git("config", "--get", "remote.origin.url") or ""
    return origin if origin.startswith("https://") and "@" not in origin else ""


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
