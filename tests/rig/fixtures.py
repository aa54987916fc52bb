"""Fixtures over the rig: a control plane for the session, a namespace or a local mode for each test."""

from __future__ import annotations

import os
import pathlib
import secrets
from collections.abc import Iterator

import pytest

from tests.rig import binaries, control_plane, local_mode


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before any test's clock runs, and say so."""
    if session.config.option.collectonly:
        return
    if any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items):
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        binaries.locate(os.environ, reporter.write_line if reporter else print)


@pytest.fixture(scope="session", name="control_plane")
def _control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control_plane.ControlPlane]:
    found = binaries.locate(os.environ, print)
    with control_plane.running(found, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: control_plane.ControlPlane) -> Iterator[str]:
    """An empty namespace that no other test knows."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def local(tmp_path: pathlib.Path) -> Iterator[local_mode.Local]:
    """Local mode on a data directory of its own."""
    with local_mode.running(tmp_path) as made:
        yield made
