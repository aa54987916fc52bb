"""What an image is made of, and that its files agree with the rest of the repository."""

import dataclasses
import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

from images import inputs
from images.storage import ROOT

LOCKED = {
    "serve": ["oci", "s3", "serve", "telemetry"],
    "builder": ["build", "oci", "s3", "serve", "telemetry"],
    "operator": ["operator"],
    "router": ["operator", "router"],
    "triton": ["oci", "s3", "serve", "telemetry", "triton"],
}


def test_copied_paths_are_those_from_the_context_only() -> None:
    text = "COPY a b/c ./\nRUN x\nCOPY --from=tools /out /\nCOPY serving serving\n"
    assert inputs.copied(text) == ["a", "b/c", "serving"]


@pytest.mark.parametrize("name", inputs.NAMES)
def test_an_image_installs_every_lock_that_it_copies(name: str) -> None:
    text = inputs.containerfile(name).read_text()
    copied = {Path(path).stem for path in inputs.copied(text) if path.startswith("requirements/")}
    renamed = set(re.findall(r"^COPY \S+/toolchains/\w+\.txt (\w+)\.txt$", text, re.MULTILINE))
    installed = set(re.findall(r'"(\w+)\.txt"', text))
    assert copied == installed - renamed == {"images", *LOCKED[name]}


@pytest.mark.parametrize("name", inputs.NAMES)
def test_what_an_image_copies_is_in_its_context(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for path in inputs.copied(inputs.containerfile(name).read_text()):
        assert any(fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/") for pattern in allowed), path


@pytest.mark.parametrize("name", inputs.NAMES)
def test_an_image_states_this_version_runs_as_nobody_and_needs_no_shell(name: str) -> None:
    text = inputs.containerfile(name).read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'image.version="{version}"' in text
    assert "USER 65532:65532\n" in text
    run = re.findall(r"^(?:RUN(?: --\S+)*|ENTRYPOINT|CMD) (.)", text, re.MULTILINE)
    assert set(run) == {"["}


def test_a_changed_file_base_or_label_changes_the_fingerprint() -> None:
    made = inputs.of("serve", "docker.io/library/python:3.11")
    other = inputs.of("serve", "docker.io/library/python:3.12")
    fewer = dataclasses.replace(made, files=made.files[1:])
    relabelled = dataclasses.replace(made, labels={"revision": "another"})
    assert len({each.fingerprint() for each in (made, other, fewer, relabelled)}) == 4
    assert made.fingerprint() == inputs.of("serve", "docker.io/library/python:3.11").fingerprint()


def test_the_server_is_not_made_of_what_decides() -> None:
    folders = {file.relative_to(ROOT).parts[0] for file in inputs.of("serve", "any").files}
    assert folders == {"LICENSE", "README.md", "images", "pyproject.toml", "requirements", "serving"}
