"""How digests are pinned."""

import yaml

from helm import values as chart
from images import release

REGISTRY = "ghcr.io/example"
DIGESTS = {
    f"penstock-{name}": f"sha256:{number:064x}" for number, name in enumerate((*release.STARTED, *release.IN_MANIFESTS))
}


def test_the_charts_images_are_pinned_by_values_that_the_chart_takes() -> None:
    made = release.values(REGISTRY, DIGESTS)
    assert made == {
        "images": {
            "registry": REGISTRY,
            "operator": {"digest": DIGESTS["penstock-operator"]},
            "router": {"digest": DIGESTS["penstock-router"]},
            "serve": {"digest": DIGESTS["penstock-serve"]},
            "builder": {"digest": DIGESTS["penstock-builder"]},
            "triton": {"digest": DIGESTS["penstock-triton"]},
        }
    }
    assert set(made["images"]) <= set(chart.Images.model_fields)


def test_kustomize_pins_every_image_and_tells_the_operator_those_of_its_pods() -> None:
    made = release.component(REGISTRY, DIGESTS)
    assert made["images"] == [
        {"name": name, "newName": f"{REGISTRY}/{name}", "digest": DIGESTS[name]}
        for name in ("penstock-operator", "penstock-router", "penstock-serve")
    ]
    (patch,) = (yaml.safe_load(one["patch"]) for one in made["patches"])
    started = [
        {"name": "BUILDER_IMAGE", "value": f"{REGISTRY}/penstock-builder@{DIGESTS['penstock-builder']}"},
        {"name": "TRITON_IMAGE", "value": f"{REGISTRY}/penstock-triton@{DIGESTS['penstock-triton']}"},
    ]
    assert patch["spec"]["template"]["spec"]["containers"] == [{"name": "operator", "env": started}]
    (carried,) = made["replacements"]
    assert carried["source"]["name"] == "penstock-router"
    assert [target["select"]["name"] for target in carried["targets"]] == ["penstock-operator"]
