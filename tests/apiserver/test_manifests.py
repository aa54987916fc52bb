"""What is written in manifests/ and helm/ agrees, and the API server takes it as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helm import writing
from tests.rig import binaries, rendering
from tests.rig.control_plane import ControlPlane
from tests.rig.rendering import Object

HELM_LABELS = ("app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")


@pytest.fixture(scope="session")
def helm() -> Path:
    return binaries.built(binaries.HELM, os.environ, print)


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def without_helm_labels(found: Object) -> Object:
    labels = {key: value for key, value in found["metadata"]["labels"].items() if key not in HELM_LABELS}
    return found | {"metadata": found["metadata"] | {"labels": labels}}


def test_install_yaml_is_what_the_manifests_say(control_plane: ControlPlane) -> None:
    made = rendering.install(control_plane.kubectl_path)
    assert writing.INSTALL.read_text() == made, "run `make manifests` and commit it"


def test_the_chart_with_default_values_and_the_manifests_are_the_same_objects(
    control_plane: ControlPlane, helm: Path
) -> None:
    base = by_name(rendering.objects(rendering.kustomize(control_plane.kubectl_path, rendering.MANIFESTS / "base")))
    chart = rendering.template(helm, "penstock", options=["--skip-tests"])
    # Helm makes the namespace itself.
    del base["Namespace", rendering.NAMESPACE]
    assert by_name([without_helm_labels(found) for found in chart]) == base


def test_the_chart_of_the_kinds_is_the_kinds_and_keeps_them(control_plane: ControlPlane, helm: Path) -> None:
    chart = by_name(rendering.template(helm, "penstock-crds"))
    kinds = by_name(rendering.objects(rendering.kustomize(control_plane.kubectl_path, rendering.MANIFESTS / "crds")))
    definitions = [found for (kind, _), found in chart.items() if kind == "CustomResourceDefinition"]
    assert [found["metadata"].pop("annotations") for found in definitions] == [{"helm.sh/resource-policy": "keep"}] * 3
    assert chart == kinds
