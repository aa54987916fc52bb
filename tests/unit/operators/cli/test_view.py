"""What ``penstock up`` tells, whole."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

from rich.console import Console

from operators.api.plan import Key
from operators.cli import view

NOW = datetime.datetime(2026, 1, 2, 3, 14, 5, tzinfo=datetime.UTC)
DIGITS = Key("Model", "default", "digits")
URL = "http://127.0.0.1:8080/default/digits"


def model(status: str = "", reason: str = "", message: str = "", revision: str = "") -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
    return {
        "kind": "Model",
        "metadata": {"name": "digits", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"source": {"uri": "file:///m.onnx"}},
        "status": {
            "conditions": [condition] if status else [],
            "url": URL,
            "revision": revision,
            "variant": "fp32" if revision else "",
            "readyReplicas": 1 if revision else 0,
        },
    }


def test_a_line_is_told_when_something_a_person_wants_to_know_is_new() -> None:
    changes = view.Changes()
    states = [
        model(),
        model("False", "Preparing", "model digits: variant fp32: being fetched"),
        model("False", "Preparing", "model digits: variant fp32: being fetched"),
        model("True", "Serving", "revision 1a2b3c4d (fp32) serves", "1a2b3c4d"),
        model("True", "ServingPrevious", "revision 1a2b3c4d goes on serving; wrong digest", "1a2b3c4d"),
        model("True", "Serving", "revision 5e6f7a8b (fp32) serves", "5e6f7a8b"),
        None,
        None,
    ]
    assert [changes.line(DIGITS, state) for state in states] == [
        "model default/digits applied",
        "model default/digits not ready (Preparing): variant fp32: being fetched",
        None,
        f"model default/digits Ready: {URL} (revision 1a2b3c4d)",
        "model default/digits Ready (ServingPrevious): revision 1a2b3c4d goes on serving; wrong digest",
        f"model default/digits Ready: {URL} (revision 5e6f7a8b)",
        "model default/digits deleted",
        None,
    ]


def test_while_variants_are_made_the_line_says_where_to_look() -> None:
    serves = model("True", "Serving", "revision 1a2b3c4d (fp32) serves", "1a2b3c4d")
    building = model("True", "Serving", "revision 1a2b3c4d (fp32) serves", "1a2b3c4d")
    building["status"]["conditions"].append({"type": "VariantsReady", "status": "False", "reason": "Building"})
    changes = view.Changes()
    assert [changes.line(DIGITS, state) for state in (building, building, serves)] == [
        f"model default/digits Ready: {URL} (revision 1a2b3c4d); variants are being made, "
        "`penstock describe model digits` says how far",
        None,
        f"model default/digits Ready: {URL} (revision 1a2b3c4d)",
    ]


def endpoint() -> dict[str, Any]:
    message = "endpoint reader: no arm has a serving model"
    condition = {"type": "Ready", "status": "False", "reason": "NoArmAnswers", "message": message}
    return {
        "kind": "Endpoint",
        "metadata": {"name": "reader", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"arms": [{"name": "a", "model": "digits", "weight": 100}]},
        "status": {"conditions": [condition], "url": "http://127.0.0.1:8080/default/reader"},
    }


def shown(objects: list[dict[str, Any]], events: list[str], width: int) -> list[str]:
    console = Console(width=width, file=None, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(view.page("penstock serves", [".venv/bin/penstock"], objects, events, NOW, width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_screen_shows_objects_lines_to_paste_and_events() -> None:
    serving = model("True", "ServingPrevious", "revision 1a2b3c4d goes on serving; wrong digest", "1a2b3c4d")
    assert shown([serving, endpoint()], ["03:14:05  model default/digits applied"], 110) == [
        "penstock serves",
        "",
        " NAME     READY   VARIANT   REVISION   REPLICAS   URL                                    AGE",
        " ───────────────────────────────────────────────────────────────────────────────────────────",
        " digits   True    fp32      1a2b3c4d   1/1        http://127.0.0.1:8080/default/digits   10m",
        "",
        "",
        " NAME     READY   ARMS    URL                                    AGE",
        " ───────────────────────────────────────────────────────────────────",
        " reader   False   a=100   http://127.0.0.1:8080/default/reader   10m",
        "",
        "digits: revision 1a2b3c4d goes on serving; wrong digest",
        "reader: no arm has a serving model",
        "",
        ".venv/bin/penstock infer digits --input FILE",
        "curl http://127.0.0.1:8080/default/digits",
        "Ctrl-C ends everything; what was applied is kept.",
        "03:14:05  model default/digits applied",
    ]


def test_a_narrow_screen_goes_without_urls_first_and_keeps_name_and_ready() -> None:
    serving = model("True", "Serving", "revision 1a2b3c4d (fp32) serves", "1a2b3c4d")
    assert [shown([serving], [], width)[2].split() for width in (93, 60, 17)] == [
        ["NAME", "READY", "VARIANT", "REVISION", "REPLICAS", "URL", "AGE"],
        ["NAME", "READY", "VARIANT", "REVISION", "REPLICAS", "AGE"],
        ["NAME", "READY"],
    ]


def test_a_line_to_paste_that_is_too_long_is_broken_as_a_shell_reads_it() -> None:
    serving = model("True", "Serving", "revision 1a2b3c4d (fp32) serves", "1a2b3c4d")
    lines = shown([serving], [], 42)
    assert lines[7:9] == [".venv/bin/penstock \\", "  infer digits --input FILE"]


def test_what_was_not_looked_at_yet_is_starting() -> None:
    assert shown([model() | {"status": {}}], [], 110)[4].split() == ["digits", "starting", "-", "-", "0/1", "-", "10m"]


def test_a_command_to_paste_is_the_one_that_was_typed(tmp_path: pathlib.Path) -> None:
    installed = tmp_path / "bin" / "penstock"
    installed.parent.mkdir()
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    environment = {"PATH": str(installed.parent), "XDG_STATE_HOME": "/state"}
    usual, other = pathlib.Path("/state/penstock"), pathlib.Path("/other one")
    typed = [(str(installed), usual), (".venv/bin/penstock", usual), ("main.py", other)]
    assert [view.command(name, folder, environment) for name, folder in typed] == [
        ["penstock"],
        [".venv/bin/penstock"],
        ["PENSTOCK_DATA_DIR='/other one'", "penstock"],
    ]
