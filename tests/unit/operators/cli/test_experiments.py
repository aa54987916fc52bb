"""An experiment as people look at it."""

from __future__ import annotations

import datetime
import io
import json
from typing import Any

import pytest
from rich.console import Console

from operators.api.errors import OperatorError
from operators.cli import experiments, show

NOW = datetime.datetime(2026, 1, 2, 3, 14, 5, tzinfo=datetime.UTC)
KNOWN: dict[str, Any] = {
    "name": "1a2b3c4d",
    "metric": "clicks",
    "policy": "bandit",
    "state": "Found",
    "began": "2026-01-02T03:04:05Z",
    "verdict": "new is better than control by 0.1 (0.05 to 0.15)",
    "arms": [
        {"name": "control", "weight": 3_750, "units": 1_200, "mean": 0.5},
        {
            "name": "new",
            "weight": 6_250,
            "units": 2_000,
            "mean": 0.6,
            "effect": {"value": 0.1, "low": 0.05, "high": 0.15},
        },
        {"name": "old", "weight": 0, "units": 150, "mean": 0.25, "out": "worse by 0.1 at least"},
    ],
    "memory": {"of": "x"},
}
ARMS = [{"name": name, "model": name[0], "weight": 33} for name in ("control", "new", "old")]


def endpoint(**known: Any) -> dict[str, Any]:
    return {
        "kind": "Endpoint",
        "metadata": {"name": "reader", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"arms": ARMS, "policy": "bandit"},
        "status": {"experiment": KNOWN} | known,
    }


def drawn(object_: dict[str, Any]) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(experiments.page(object_, NOW))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_arms_are_drawn_with_share_outcomes_and_interval_and_the_verdict_below() -> None:
    assert drawn(endpoint()) == [
        "reader   bandit on clicks   since 10m   found",
        "",
        "  control  █████▋·········  37.5 %  1,200 outcomes  mean 0.5",
        "  new      █████████▍·····  62.5 %  2,000 outcomes  mean 0.6",
        "  old      ···············  0 %     150 outcomes    mean 0.25",
        "",
        "  new                  │   ├───●───┤  +0.1 (+0.05 to +0.15)",
        "  old      out: worse by 0.1 at least",
        "  new is better than control by 0.1 (0.05 to 0.15)",
    ]


def test_long_names_and_numbers_fit_into_80_columns() -> None:
    wide = endpoint()
    control, new, old = (dict(arm) for arm in KNOWN["arms"])
    control["units"] = 12_345_678
    new |= {"name": "challenger", "effect": {"value": -1.2345e-5, "low": -2.345e-5, "high": -1.234e-5}}
    old |= {"name": "a-very-long-name-of-an-arm", "out": "its interval beside control lies below 0, by 0.1 of a click"}
    said = {
        "arms": [control, new, old],
        "verdict": "the challenger is worse than control by 0.0000123 of what counts here",
    }
    wide["status"] = {"experiment": KNOWN | said}
    assert drawn(wide)[2:] == [
        "  control         █████▋·········  37.5 %  12,345,678 outcomes  mean 0.5",
        "  challenger      █████████▍·····  62.5 %  2,000 outcomes       mean 0.6",
        "  a-very-long-n…  ···············  0 %     150 outcomes         mean 0.25",
        "",
        "  challenger      ├─────●     │              -1.23e-05 (-2.35e-05 to -1.23e-05)",
        "  a-very-long-n…  out: its interval beside control lies below 0, by 0.1 of a",
        "                  click",
        "  the challenger is worse than control by 0.0000123 of what counts here",
    ]


@pytest.mark.parametrize(
    ("low", "value", "high", "reach", "drawn"),
    [
        (-1.0, 0.0, 1.0, 1.0, "├───────────●───────────┤"),
        (0.5, 0.75, 1.0, 1.0, "            │     ├──●──┤"),
        (0.0, 0.0, 0.0, 0.0, "            ●            "),
    ],
)
def test_an_interval_lies_on_an_axis_with_zero_in_its_middle(
    low: float, value: float, high: float, reach: float, drawn: str
) -> None:
    assert experiments.interval(low, value, high, reach) == drawn


def test_logs_get_a_line_and_programs_all_but_the_memory() -> None:
    assert experiments.line(endpoint()) == "reader: Found: new is better than control by 0.1 (0.05 to 0.15)"
    told = json.loads(show.as_json(experiments.as_data(endpoint())))
    assert (told["endpoint"], told["name"], "memory" in told) == ("reader", "1a2b3c4d", False)
    assert [arm["weight"] for arm in told["arms"]] == [37.5, 62.5, 0]


def test_an_endpoint_without_an_experiment_says_what_to_add() -> None:
    plain = endpoint() | {"spec": {"arms": ARMS}, "status": {}}
    with pytest.raises(OperatorError, match=r"endpoint reader: its spec has no experiment; add spec\.experiment, or"):
        experiments.page(plain, NOW)
    accepted = {"type": "Accepted", "message": "Gateway infra/web counts no outcomes"}
    with pytest.raises(OperatorError, match="nothing is known of its experiment: Gateway infra/web counts no outcomes"):
        experiments.page(endpoint(experiment=None, conditions=[accepted]), NOW)


def test_get_and_describe_show_the_shares_of_now_and_what_is_known() -> None:
    lines = show.table(show.rows("Endpoint", [endpoint()], NOW, wide=False)).splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "READY", "ARMS", "EXPERIMENT", "URL", "AGE"],
        ["reader", "Unknown", "control=37.5,new=62.5,old=0", "found", "-", "10m"],
    ]
    described = show.describe(endpoint(), NOW)
    assert "Experiment:   new is better than control by 0.1 (0.05 to 0.15)\n" in described
    assert [line.split() for line in described.splitlines() if line.startswith("  new")] == [
        ["new", "n", "62.5", "%", "2,000", "0.6", "+0.1", "(+0.05", "to", "+0.15)"]
    ]
