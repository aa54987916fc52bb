"""What ``penstock up`` tells, whole."""

from __future__ import annotations

import datetime
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
        "model default/digits not ready (Preparing): model digits: variant fp32: being fetched",
        None,
        f"model default/digits Ready: {URL} (revision 1a2b3c4d)",
        "model default/digits Ready (ServingPrevious): revision 1a2b3c4d goes on serving; wrong digest",
        f"model default/digits Ready: {URL} (revision 5e6f7a8b)",
        "model default/digits deleted",
        None,
    ]


def test_the_screen_shows_models_events_and_lines_to_paste() -> None:
    console = Console(width=110, file=None, record=True, force_terminal=False)
    serving = model("True", "ServingPrevious", "revision 1a2b3c4d goes on serving; wrong digest", "1a2b3c4d")
    with console.capture() as captured:
        console.print(view.page("penstock serves", [serving], ["03:14:05  model default/digits applied"], NOW))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines == [
        "penstock serves",
        "",
        " NAME     READY   VARIANT   REVISION   REPLICAS   URL                                    AGE",
        " ───────────────────────────────────────────────────────────────────────────────────────────",
        " digits   True    fp32      1a2b3c4d   1/1        http://127.0.0.1:8080/default/digits   10m",
        "",
        "digits: revision 1a2b3c4d goes on serving; wrong digest",
        "03:14:05  model default/digits applied",
        "",
        "penstock infer digits --input FILE",
        "curl http://127.0.0.1:8080/default/digits",
        "Ctrl-C ends everything; what was applied is kept.",
    ]
