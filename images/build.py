"""Builds the images with buildah, without a daemon, into one archive each that any container runtime loads.

Two things make a second run quick: an image whose inputs are those of its archive is left alone, and buildah keeps
what each line of a Containerfile made.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from images import archive, base, inputs, storage, wheels
from images.inputs import NAMES
from images.storage import ROOT, CannotBuild, Say, Storage

OUTPUT = ROOT / "build" / "images"
RECORD = "images.json"
REVISION = "org.opencontainers.image.revision"
EPOCH_S = 0
"""The date of every file and layer: equal inputs give equal digests, and what did not change is not pulled again."""


@dataclasses.dataclass(frozen=True)
class Built:
    """One image's archive: its name and tag, what it was made from, its digest, and its sizes in bytes."""

    reference: str
    revision: str
    digest: str
    compressed_bytes: int
    unpacked_bytes: int
    fingerprint: str


def build(
    names: Sequence[str], output: Path, say: Say, *, public_base: str | None = None, refresh: bool = False
) -> dict[str, Built]:
    """Build the named images, all of them for none, into ``output/penstock-NAME.tar``; what is current stays.

    ``public_base`` is an image to build on instead of the base made here; ``refresh`` makes that one anew, with
    Debian's updates.

    Raises:
        CannotBuild: there is no such image, a program is missing, or a build failed.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise CannotBuild(f"no image is named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    output.mkdir(parents=True, exist_ok=True)
    made: dict[str, Built] = {}
    with storage.opened(say) as opened:
        ready = False
        for name in names or NAMES:
            full = f"penstock-{name}"
            wanted = inputs.of(name, public_base or base.reference())
            before = recorded(output)
            if not refresh and full in before and before[full].fingerprint == wanted.fingerprint():
                say(f"{full}: unchanged")
                made[full] = before[full]
                continue
            if not ready:
                _prepare(opened, say, own_base=public_base is None, refresh=refresh)
                ready = True
            made[full] = _image(opened, name, wanted, output, say)
            _record(output, {**before, full: made[full]})
    return made


def recorded(output: Path) -> dict[str, Built]:
    """What a folder's record says of the archives that are there; nothing where another version wrote it."""
    try:
        record = json.loads((output / RECORD).read_text())
        return {name: Built(**entry) for name, entry in record.items() if (output / f"{name}.tar").is_file()}
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def table(images: Mapping[str, Built]) -> str:
    """One line an image: sizes in MB of 1,000,000 bytes, digest."""
    rows = [("image", "compressed", "unpacked", "digest")]
    for name, image in sorted(images.items()):
        compressed, unpacked = (f"{size / 1e6:.1f} MB" for size in (image.compressed_bytes, image.unpacked_bytes))
        rows.append((name, compressed, unpacked, image.digest))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {compressed.rjust(widths[1])}  {unpacked.rjust(widths[2])}  {digest}"
        for name, compressed, unpacked, digest in rows
    )


def _prepare(opened: Storage, say: Say, *, own_base: bool, refresh: bool) -> None:
    storage.require(("buildah", "mmdebstrap") if own_base else ("buildah",), say)
    say("wheels: looking for those of the locks")
    started = time.monotonic()
    try:
        if wheels.download(inputs.locks(), ROOT / "images" / "wheels"):
            say(f"wheels: downloaded in {time.monotonic() - started:.0f} s")
        if own_base and (refresh or not _is_there(opened, base.reference())):
            _base(opened, say)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "")[-2000:]
        raise CannotBuild(f"`{' '.join(error.cmd)}` ended with {error.returncode}:\n{said}") from error


def _is_there(opened: Storage, reference: str) -> bool:
    return bool(opened.run("images", "--quiet", "--filter", f"reference={reference}").strip())


def _base(opened: Storage, say: Say) -> None:
    say("base: unpacking Debian packages")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=opened.folder) as scratch:
        root = base.make(Path(scratch))
        container = opened.run("from", "scratch").strip()
        try:
            opened.run("add", "--quiet", container, str(root), "/")
            opened.run("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
            opened.run("commit", "--quiet", f"--timestamp={EPOCH_S}", container, base.reference())
        finally:
            opened.run("rm", container)
    say(f"base: made in {time.monotonic() - started:.0f} s")


def _image(opened: Storage, name: str, wanted: inputs.Inputs, output: Path, say: Say) -> Built:
    full = f"penstock-{name}"
    reference = f"docker.io/library/{full}:{wanted.version}"
    say(f"{full}: building")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        identity, grown = Path(scratch) / "id", Path(scratch) / "archive.tar"
        labels = [f"--label={key}={value}" for key, value in wanted.labels.items()]
        opened.run(
            "bud", "--layers", "--format=oci", f"--timestamp={EPOCH_S}", f"--iidfile={identity}",
            f"--file={inputs.containerfile(name)}", f"--build-arg=BASE={wanted.base}", *labels, str(ROOT),
        )  # fmt: skip
        opened.run("push", "--quiet", identity.read_text(), f"oci-archive:{grown}:{reference}")
        built = Built(reference, wanted.labels.get(REVISION, ""), *archive.measured(grown), wanted.fingerprint())
        (output / f"{full}.cdx.json").write_bytes(archive.bill_of_materials(grown, full))
        grown.replace(output / f"{full}.tar")
    say(f"{full}: built in {time.monotonic() - started:.0f} s")
    return built


def _record(output: Path, images: Mapping[str, Built]) -> None:
    text = json.dumps({name: dataclasses.asdict(image) for name, image in sorted(images.items())}, indent=2)
    grown = output / f".{RECORD}"
    grown.write_text(text + "\n")
    grown.replace(output / RECORD)
