"""What is written in manifests/ and helm/ agrees, and the API server takes it as it is."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helm import writing
from operators.actuators.kubernetes import build_jobs, isolation, makers
from operators.actuators.kubernetes.carriers import deployment
from operators.api.builder import Builder
from operators.api.plan import FULL_WEIGHT, Arm, Build, Fetch, Key, Route, Split, Workload
from operators.api.resources import ComputeList, Resources
from operators.planning import runtimes
from tests.rig import binaries, rendering, schemas
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


def composed(kubectl: Path, folder: Path, *components: str) -> list[Object]:
    """The base with components, as an overlay in ``folder`` would have it."""
    shutil.copytree(rendering.MANIFESTS, folder / "manifests")
    parts = {"resources": ["manifests/base"], "components": [f"manifests/components/{name}" for name in components]}
    (folder / "kustomization.yaml").write_text(json.dumps(parts))
    return rendering.objects(rendering.kustomize(kubectl, folder))


@pytest.mark.parametrize(
    ("components", "values"),
    [
        ((), {}),
        (("tls",), {"router": {"tls": {"secretName": "penstock-router-tls"}}}),
        (("node-cache",), {"cache": {"enabled": True}}),
        (("kserve",), {"kserve": {"servingRuntime": True}}),
        (("gateway",), {"gateway": {"namespace": "gateways", "name": "penstock"}}),
    ],
    ids=["default", "tls", "node-cache", "kserve", "gateway"],
)
def test_the_chart_and_the_manifests_are_the_same_objects(
    control_plane: ControlPlane, helm: Path, tmp_path: Path, components: tuple[str, ...], values: Object
) -> None:
    manifests = by_name(composed(control_plane.kubectl_path, tmp_path, *components))
    chart = rendering.template(helm, "penstock", values, ["--skip-tests"])
    # Helm makes the namespace itself.
    del manifests["Namespace", rendering.NAMESPACE]
    assert by_name([without_helm_labels(found) for found in chart]) == manifests


def test_the_chart_of_the_kinds_is_the_kinds_and_keeps_them(control_plane: ControlPlane, helm: Path) -> None:
    chart = by_name(rendering.template(helm, "penstock-crds"))
    kinds = by_name(rendering.objects(rendering.kustomize(control_plane.kubectl_path, rendering.MANIFESTS / "crds")))
    definitions = [found for (kind, _), found in chart.items() if kind == "CustomResourceDefinition"]
    assert [found["metadata"].pop("annotations") for found in definitions] == [{"helm.sh/resource-policy": "keep"}] * 3
    assert chart == kinds


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://example.com/hook", 80),
        ("https://example.com/hook", 443),
        ("http://receiver.team:9090/hook?a=1:2", 9090),
        ("https://[2001:db8::1]/hook", 443),
        ("https://[2001:db8::1]:8443", 8443),
    ],
)
def test_the_operator_reaches_the_receiver_of_its_decisions(helm: Path, url: str, port: int) -> None:
    made = by_name(rendering.template(helm, "penstock", {"operator": {"webhook": {"url": url}}}, ["--skip-tests"]))
    arguments = made["Deployment", "penstock-operator"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--webhook-url={url}" in arguments
    egress = made["NetworkPolicy", "penstock-operator"]["spec"]["egress"]
    assert egress[1:] == [{"ports": [{"protocol": "TCP", "port": port}]}]


OVERLAYS = ("dev", "gke", "aks", "onprem")
VALUES = sorted(path.name for path in rendering.CHARTS.glob("penstock/ci/*-values.yaml"))
UNKNOWN = ("Certificate", "ClusterServingRuntime", "Issuer", "ServingRuntime")
"""Kinds of cert-manager and KServe, which the API server of this tier does not serve."""


@pytest.fixture(scope="session")
def conforms(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Object]], None]:
    """Holds objects against what the API server says of their kinds, ours included."""
    kubeconform = binaries.built(binaries.KUBECONFORM, os.environ, print)
    folder = tmp_path_factory.mktemp("schemas")
    deadline = time.monotonic() + 60
    while (
        "dev.penstock.v1alpha1.Model"
        not in (openapi := json.loads(installed.kubectl("get", "--raw", "/openapi/v2")))["definitions"]
    ):
        assert time.monotonic() < deadline, "the API server does not describe our kinds after 60 s"
    schemas.write(openapi, folder)
    return lambda objects: schemas.check(kubeconform, folder, objects, UNKNOWN)


def test_a_field_that_does_not_exist_would_be_found(conforms: Callable[[list[Object]], None]) -> None:
    objects = rendering.objects(writing.INSTALL.read_text())
    conforms(objects)
    (router,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == ("Deployment", "penstock-router")]
    router["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["timeout"] = 1
    with pytest.raises(rendering.RenderError, match=r"Deployment penstock-router is invalid.*timeout"):
        conforms(objects)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_only_fields_that_exist(
    control_plane: ControlPlane, conforms: Callable[[list[Object]], None], overlay: str
) -> None:
    folder = rendering.MANIFESTS / "overlays" / overlay
    objects = rendering.objects(rendering.kustomize(control_plane.kubectl_path, folder))
    conforms(objects)
    found = by_name(objects)
    operator, router = (
        found["Deployment", f"penstock-{component}"]["spec"]["template"]["spec"]["containers"]
        for component in ("operator", "router")
    )
    # Model pods get the image that the catalog has, whatever the registry, and the others come from the same one.
    told = {entry["name"]: entry.get("value") for entry in operator[0]["env"]}
    assert told["SERVE_IMAGE"] == router[1]["image"]
    for name in ("builder", "triton"):
        assert told[f"{name.upper()}_IMAGE"] == router[1]["image"].replace("penstock-serve", f"penstock-{name}")


def test_the_component_for_a_gateway_leaves_the_router_out(
    control_plane: ControlPlane, conforms: Callable[[list[Object]], None], tmp_path: Path
) -> None:
    objects = composed(control_plane.kubectl_path, tmp_path, "gateway")
    conforms(objects)
    assert {kind for kind, name in by_name(objects) if "router" in name} == set()
    (operator,) = by_name(objects)["Deployment", "penstock-operator"]["spec"]["template"]["spec"]["containers"]
    assert operator["args"] == [
        "--lease-namespace=$(POD_NAMESPACE)",
        "--image=$(SERVE_IMAGE)",
        "--gateway=gateways/penstock",
        "--builder-image=$(BUILDER_IMAGE)",
        "--triton-image=$(TRITON_IMAGE)",
        f"--builder={json.dumps(Builder().to_dict(), sort_keys=True, separators=(',', ':'))}",
    ]


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_has_only_fields_that_exist(
    helm: Path, conforms: Callable[[list[Object]], None], values: str
) -> None:
    conforms(rendering.template(helm, "penstock", options=["-f", str(rendering.CHARTS / "penstock" / "ci" / values)]))


def test_the_chart_of_models_makes_what_the_kinds_allow(helm: Path, conforms: Callable[[list[Object]], None]) -> None:
    values = rendering.CHARTS / "penstock-models" / "ci" / "digits-values.yaml"
    objects = rendering.template(helm, "penstock-models", options=["-f", str(values)])
    conforms(objects)
    assert set(by_name(objects)) == {
        ("Model", "digits"),
        ("Model", "digits-wide"),
        ("Endpoint", "reader"),
        ("ServingRuntime", "triton"),
    }


def test_what_the_operator_makes_has_only_fields_that_exist(conforms: Callable[[list[Object]], None]) -> None:
    runtime = runtimes.builtin("penstock-serve:1", "python3")["onnxruntime"]
    some = Resources(requests=ComputeList(cpu="500m", memory="1Gi"))
    artifacts = [Fetch(uri, "sha256:" + "a" * 64) for uri in ("s3://models/a", "pvc://store/a", "oci://registry/a:1")]
    workloads = [
        Workload("digits-1-a", "team", "digits", "1", "a", artifact, runtime, 2, some) for artifact in artifacts
    ]
    key = Key("Model", "team", "digits")
    owner = makers.owner(key, "3f0b6c0e-0000-4000-8000-000000000000")
    arms = (Arm("digits-1-a", "1", "a", FULL_WEIGHT),)
    everything = Builder.model_validate(
        {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "podAnnotations": {"a": "b"}}
    )
    build = Build("a1b2c3d4", json.dumps([{"uri": "pvc://store/a"}, {"uri": "oci://registry/a:1"}]))
    conforms(
        [
            *(deployment.make(w, owner, makers.pod(w, "penstock-serve:1")) for w in workloads),
            makers.service(workloads[0], owner, {}),
            makers.route(Route("team", "digits", arms), owner),
            makers.route(Split("team", "reader", (("digits", FULL_WEIGHT),)), owner),
            isolation.network_policy(key, workloads, "penstock-system", ("monitoring",), owner),
            build_jobs.job(key, build, owner, everything, "penstock-builder:1", "s3://models/store"),
            build_jobs.network_policy(key, [build], "penstock-system", owner),
        ]
    )
