from __future__ import annotations

from operators.api.plan import Arm, Route, Split
from operators.router.agent import index
from operators.router.table import Server, Table, successor

SERVER = Server("127.0.0.1", 8001, 9001, True)


def test_the_index_lists_everything_and_says_why_something_does_not_answer() -> None:
    table = successor(
        Table(),
        [
            Route("default", "m", (Arm("m-r1", "r1", "fp32", 10_000),)),
            Route("team", "slow", (Arm("slow-r1", "r1", "fp32", 10_000),)),
            Route("default", "gone", (), "its artifact is missing"),
            Split("default", "good", (("m", 10_000), ("gone", 0))),
            Split("default", "bad", (("m", 5_000), ("gone", 5_000))),
        ],
        {"default/m-r1": (SERVER,)},
        None,
    )
    assert [(entry["name"], entry["state"], entry["reason"]) for entry in index(table)] == [
        ("bad", "UNAVAILABLE", "no server of model gone is ready"),
        ("gone", "UNAVAILABLE", "its artifact is missing"),
        ("good", "READY", ""),
        ("m", "READY", ""),
        ("team/slow", "UNAVAILABLE", "no server of team/slow is ready"),
    ]


def test_the_index_of_one_namespace_leaves_out_the_others() -> None:
    routes = [Route("default", "m", ()), Route("default-x", "m", ()), Route("team", "secret", ())]
    assert [entry["name"] for entry in index(successor(Table(), routes, {}, None), "default")] == ["m"]
