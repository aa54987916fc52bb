"""Somebody who wants to hear of rollouts: a real HTTP server that `penstock up` tells."""

from __future__ import annotations

import json
import pathlib

from tests.local.test_rollouts import write
from tests.rig.load import FIRST, NEXT
from tests.rig.local_mode import Local
from tests.rig.receiver import receiving


def test_a_rollout_is_told_from_its_beginning_to_its_end(local: Local, tmp_path: pathlib.Path) -> None:
    steps = [{"weight": 10}, {"weight": 50}]
    with receiving(refuses=1) as receiver:
        local.up(write(tmp_path, FIRST, steps), "--webhook-url", receiver.url)
        local.serving("digits")
        assert receiver.came == [], "the first revision replaces nothing"
        assert local("apply", "-f", write(tmp_path, NEXT, steps))[0] == 0
        local.until("the end is told", lambda: bool(receiver.came) and receiver.came[-1]["type"].endswith("promoted"))
        told = {one["id"]: one for one in receiver.came}
        assert len(receiver.came) == len(told) + 1, "the one that was refused comes again"
        types = [one["type"].removeprefix("dev.penstock.rollout.") for one in told.values()]
        assert types == ["begun", "step", "promoted"]
        last = receiver.came[-1]
        _, shown, _ = local("rollout", "status", "digits", "-o", "json")
        assert last["data"]["rollout"] == json.loads(shown)["rollout"]
        assert [one["data"]["rollout"]["step"] for one in told.values()] == [1, 2, 2]
        assert [one["data"]["rollout"]["target"] for one in told.values()] == [10, 50, 100]
        assert last["subject"] == last["data"]["rollout"]["revision"]
        assert last["source"] == "/apis/penstock.dev/v1alpha1/namespaces/default/models/digits"


def test_what_is_no_url_is_told_at_once(local: Local) -> None:
    said = "error: --webhook-url example.com: expected http://HOST/PATH or https://HOST/PATH\n"
    assert local("up", "--webhook-url", "example.com") == (1, "", said)
