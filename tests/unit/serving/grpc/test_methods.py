from __future__ import annotations

from typing import Any

import pytest

from serving.grpc import methods as grpc_methods
from serving.protocols import grpc


@pytest.mark.parametrize(
    ("alias", "asked", "meant"),
    [
        ("one/echo", "one", "echo"),
        ("one/echo", "two", "two"),
        (None, "one", "one"),
        ("", "", ""),
        ("one", "one", "one"),
    ],
)
@pytest.mark.parametrize(("method", "field"), [("ModelInfer", "model_name"), ("ModelReady", "name")])
def test_a_name_stands_for_the_model_that_the_router_says(
    alias: str | None, asked: str, meant: str, method: str, field: str
) -> None:
    message: Any = grpc.METHODS[method][0](**{field: asked})
    assert getattr(grpc_methods.addressed(message, lambda name: alias), field) == meant


def test_a_message_without_a_name_is_left_alone() -> None:
    message: Any = grpc.METHODS["ServerLive"][0]()
    assert grpc_methods.addressed(message, lambda name: "one/echo") is message
