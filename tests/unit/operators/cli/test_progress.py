"""Whole pages of a rollout as people see them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from rich.console import Console

from operators.api.plan import Key
from operators.cli import progress, show, view

NOW = datetime.datetime(2026, 1, 2, 3, 14, 5, tzinfo=datetime.UTC)


def revision(name: str, state: str, weight: int, ready: int) -> dict[str, Any]:
    since = "2026-01-02T03:10:00Z"
    return {"name": name, "state": state, "weight": weight, "readyReplicas": ready, "variant": "fp32", "since": since}


def rolling(**said: Any) -> dict[str, Any]:
    rollout = {
        "revision": "5e6f7a8b",
        "stable": "1a2b3c4d",
        "began": "2026-01-02T03:00:00Z",
        "state": "Progressing",
        "step": 1,
        "steps": 3,
        "target": 2500,
        "weight": 2500,
        "observed": 2500,
        "reached": True,
        "since": "2026-01-02T03:12:05Z",
        "message": "revision 5e6f7a8b has 25 % of the traffic, step 2 of 3",
        "next": "step 3 of 3, 50 % of the traffic",
        "nextAt": "2026-01-02T03:17:05Z",
        "against": {"e": 10, "bound": 100},
        "inFavour": {"e": 1, "bound": 20},
        "verdict": "0.2 % of 1,200 requests failed, of the stable revision 0.1 % of 10,220",
        "detection": "with this traffic the analysis finds 5 % failed requests, in about 90 s",
    }
    steps = [{"weight": 5, "for": "2m"}, {"weight": 25.0, "for": "5m"}, {"weight": 50, "for": "0s"}]
    return {
        "kind": "Model",
        "metadata": {"name": "digits", "generation": 2, "creationTimestamp": "2026-01-02T03:00:00Z"},
        "spec": {"source": {"uri": "s3://m/d.onnx"}, "replicas": 4, "rollout": {"steps": steps}},
        "status": {
            "observedGeneration": 2,
            "revision": "1a2b3c4d",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Serving",
                    "message": "it serves",
                    "lastTransitionTime": "2026-01-02T03:10:00Z",
                }
            ],
            "url": "http://router/digits",
            "rollout": rollout | said,
            "revisions": [revision("5e6f7a8b", "Candidate", 2500, 1), revision("1a2b3c4d", "Serving", 7500, 4)],
        },
    }


def held(**said: Any) -> dict[str, Any]:
    """A Model whose rollouts are paused by hand."""
    model = rolling(**said)
    model["metadata"]["annotations"] = {"penstock.dev/paused": "2026-01-02T03:09:05Z"}
    return model


def text(model: dict[str, Any], width: int = 110) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(progress.page(model, NOW))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def test_a_rollout_is_drawn_with_shares_steps_evidence_and_what_comes_next() -> None:
    assert (
        text(rolling())
        == """\
digits   revision 5e6f7a8b in place of 1a2b3c4d   progressing

  5e6f7a8b  ███████▌······················  25 %  1 ready  candidate
  1a2b3c4d  ██████████████████████▌·······  75 %  4 ready  serving

Steps       ✓ 5 % for 2m   ▶ 25 % for 5m (2m)   · 50 %   · all traffic
Against it  ██████████··········  e-value 10, rolled back from 100 on
For it      ····················  e-value 1, good enough from 20 on
Counted     0.2 % of 1,200 requests failed, of the stable revision 0.1 % of 10,220
Finds       with this traffic the analysis finds 5 % failed requests, in about 90 s
Next        step 3 of 3, 50 % of the traffic, in 3 min 0 s
Why         revision 5e6f7a8b has 25 % of the traffic, step 2 of 3
"""
    )


def test_a_rollout_that_ended_says_why() -> None:
    ended = rolling(state="RolledBack", message="revision 5e6f7a8b was rolled back: it was aborted by hand", verdict="")
    ended["status"]["rollout"] |= {"against": None, "inFavour": None, "next": "", "nextAt": ""}
    ended["status"]["revisions"] = [revision("5e6f7a8b", "RolledBack", 0, 0), revision("1a2b3c4d", "Serving", 10000, 4)]
    assert (
        text(ended)
        == """\
digits   revision 5e6f7a8b in place of 1a2b3c4d   rolled back

  5e6f7a8b  ······························  0 %    0 ready  rolled back
  1a2b3c4d  ██████████████████████████████  100 %  4 ready  serving

Next  `penstock rollout retry digits` tries it once more
Why   revision 5e6f7a8b was rolled back: it was aborted by hand
"""
    )
    assert progress.line(ended) == "digits: RolledBack: revision 5e6f7a8b was rolled back: it was aborted by hand"


def test_a_model_without_a_rollout_says_so() -> None:
    plain = rolling()
    del plain["status"]["rollout"]
    assert text(plain) == "digits: there was no rollout by steps; revision 1a2b3c4d serves\n"


def test_what_a_program_reads_names_the_rollout_and_leaves_the_memory_of_the_analysis_out() -> None:
    data = progress.as_data(rolling(evidence={"much": "of it"}))
    assert (data["model"], data["serves"], data["rollout"]["step"], data["rollout"]["steps"]) == (
        "digits",
        "1a2b3c4d",
        2,
        3,
    )
    assert [data["rollout"][key] for key in ("target", "weight", "observed")] == [25, 25, 25]
    assert [revision["weight"] for revision in data["revisions"]] == [25, 75]
    assert "evidence" not in data["rollout"]


@pytest.mark.parametrize(("share", "drawn"), [(0, "····"), (0.001, "▏···"), (0.5, "██··"), (1, "████"), (7, "████")])
def test_a_bar_shows_that_there_is_something_and_is_never_too_long(share: float, drawn: str) -> None:
    assert progress.bar(share, 4) == drawn


def test_get_and_describe_say_how_far_a_rollout_is() -> None:
    head, line = show.rows("Model", [rolling()], NOW, wide=False)
    assert line[head.index("ROLLOUT")] == "25 % (2/3)"
    told = "revision 5e6f7a8b has 25 % of the traffic, step 2 of 3; next: step 3 of 3, 50 % of the traffic"
    assert f" {told} at 2026-01-02T03:17:05Z\n" in show.describe(rolling(), NOW)
    head, line = show.rows("Model", [rolling(state="Paused")], NOW, wide=False)
    assert line[head.index("ROLLOUT")] == "25 % (2/3, paused)"


def test_penstock_up_tells_each_step_in_a_line() -> None:
    changes, key = view.Changes(), Key("Model", "default", "digits")
    ready = "model default/digits Ready: http://router/digits (revision 1a2b3c4d); revision 5e6f7a8b is to get"
    assert changes.line(key, rolling()) == f"{ready} 25 %, step 2 of 3"
    assert changes.line(key, rolling(observed=2400)) is None
    assert changes.line(key, rolling(state="Paused")) == f"{ready} 25 %, step 2 of 3, paused"


def test_a_pause_is_shown_while_nothing_rolls_out() -> None:
    model = held(state="Promoted", message="revision 5e6f7a8b is promoted")
    waits = "by hand 5m ago, until `penstock rollout resume digits`"
    assert f"Paused      {waits}" in text(model)
    assert progress.as_data(model)["paused"] is True
    head, line = show.rows("Model", [model], NOW, wide=False)
    assert line[head.index("ROLLOUT")] == "paused"
    told = "Rollout:      paused; a new revision waits for `penstock rollout resume digits`"
    assert told in show.describe(model, NOW).splitlines()
    del model["status"]["rollout"]
    assert text(model).splitlines() == [
        "digits: there was no rollout by steps; revision 1a2b3c4d serves",
        f"Paused: {waits}",
    ]
    model["metadata"]["annotations"] = {}
    model["spec"]["rollout"]["paused"] = True
    assert "Paused: by spec.rollout.paused, until `penstock rollout resume digits`" in text(model)


def test_a_pause_of_what_rolls_out_is_said_once_by_its_state() -> None:
    model = held(state="Paused")
    assert ("Paused  " in text(model), progress.as_data(model)["paused"]) == (False, True)


def test_many_steps_and_much_evidence_fit_into_80_columns() -> None:
    model = rolling(against={"e": 1.234e5, "bound": 100})
    model["spec"]["rollout"]["steps"] = [{"weight": weight, "for": "20m"} for weight in (1, 5, 25, 33, 40, 80.55)]
    lines = [line.rstrip() for line in text(model, 80).splitlines()]
    assert lines[5:9] == [
        "Steps       ✓ 1 % for 20m    ▶ 5 % for 20m (2m)   · 25 % for 20m",
        "            · 33 % for 20m   · 40 % for 20m       · 80.55 % for 20m",
        "            · all traffic",
        "Against it  ████████████████████  e-value 123,400, rolled back from 100 on",
    ]
