"""The kinds of the command line are those of the API."""

from __future__ import annotations

import pytest

from operators.api.base import API_VERSION
from operators.api.kinds import KINDS
from operators.cli import kinds


def test_the_table_says_what_the_types_say() -> None:
    told = {k.kind: (k.plural, k.namespaced) for k in kinds.KINDS}
    assert told == {kind: (type_.plural, type_.namespaced) for kind, type_ in KINDS.items()}
    assert f"/apis/{API_VERSION}" == kinds.PREFIX


@pytest.mark.parametrize("type_", KINDS.values(), ids=KINDS)
def test_a_kind_is_found_by_kind_plural_and_short_names(type_: type) -> None:
    words = (type_.__name__, type_.__name__.lower(), type_.plural, *type_.short_names)  # type: ignore[attr-defined]
    assert {kinds.find(word) for word in words} == {kinds.of(type_.__name__)}


def test_what_is_no_kind_is_not_found() -> None:
    assert kinds.find("pods") is None


def test_paths_are_those_of_the_kubernetes_api() -> None:
    model, runtime = kinds.of("Model"), kinds.of("ServingRuntime")
    assert [model.path(None), model.path("a"), model.path("a", "b"), runtime.path("a", "b")] == [
        "/apis/penstock.dev/v1alpha1/models",
        "/apis/penstock.dev/v1alpha1/namespaces/a/models",
        "/apis/penstock.dev/v1alpha1/namespaces/a/models/b",
        "/apis/penstock.dev/v1alpha1/servingruntimes/b",
    ]
