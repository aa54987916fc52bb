from __future__ import annotations

import pytest

from operators.runtime.resource import ObjectKey, Resource, key_of

PODS = Resource("", "v1", "pods", "Pod")
MODELS = Resource("penstock.dev", "v1alpha1", "models", "Model")
RUNTIMES = Resource("penstock.dev", "v1alpha1", "servingruntimes", "ServingRuntime", namespaced=False)


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (PODS, None, None, "/api/v1/pods"),
        (PODS, "a", "b", "/api/v1/namespaces/a/pods/b"),
        (MODELS, None, None, "/apis/penstock.dev/v1alpha1/models"),
        (MODELS, "a", None, "/apis/penstock.dev/v1alpha1/namespaces/a/models"),
        (RUNTIMES, "", "b", "/apis/penstock.dev/v1alpha1/servingruntimes/b"),
        (RUNTIMES, "a", "b", "/apis/penstock.dev/v1alpha1/servingruntimes/b"),
    ],
)
def test_a_resource_knows_its_paths(resource: Resource, namespace: str | None, name: str | None, path: str) -> None:
    assert resource.path(namespace, name) == path


def test_an_object_is_kept_by_namespace_and_name() -> None:
    assert key_of({"metadata": {"namespace": "a", "name": "b"}}) == ObjectKey("a", "b")
    assert key_of({"metadata": {"name": "b"}}) == ObjectKey("", "b")
