"""A rollout's report, from a status as the API gives it."""

from __future__ import annotations

import datetime
import html.parser
import re
from typing import Any

from operators.api.evidence import Edge, Evidence, MetricEvidence, Tally
from operators.cli import rollout_page
from tests.unit.operators.cli.test_progress import rolling

NOW = datetime.datetime(2026, 1, 2, 3, 10, 0, tzinfo=datetime.UTC)
BEGAN = datetime.datetime(2026, 1, 2, 3, 0, 0, tzinfo=datetime.UTC)


def point(minutes: int, asked: int, observed: int, against: float = 1.0, in_favour: float = 1.0) -> dict[str, Any]:
    at = (BEGAN + datetime.timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    return {"at": at, "asked": asked, "observed": observed, "against": against, "inFavour": in_favour}


def reported(**said: Any) -> dict[str, Any]:
    slow = Tally(stable=(10_210, 102), candidate=(1164, 12)), Tally(stable=(10_210, 3), candidate=(1164, 0))
    errors = Tally(stable=(10_220, 10), candidate=(1200, 36))
    users = Tally(stable=(2000, 24), candidate=(100, 4))
    evidence = Evidence(
        stable="digits-1a2b3c4d-fp32",
        candidate="digits-5e6f7a8b-fp32",
        began="2026-01-02T03:00:00.000+00:00",
        at="2026-01-02T03:10:00.000+00:00",
        edges=tuple(Edge(above_us=at, allowed_us=at * 2, share=0.01, share_if_slower=0.1) for at in (10_000, 2200)),
        metrics=(
            MetricEvidence(name="errors", against_good=(0.0,), against_bad=(0.0,), tallies=(errors,)),
            MetricEvidence(name="feedback", against_good=(0.0,), against_bad=(0.0,), tallies=(users,)),
            MetricEvidence(name="latency", against_good=(0.0,), against_bad=(0.0,), tallies=slow),
        ),
    ).to_dict()
    trail = [point(0, 0, 0), point(1, 500, 0), point(2, 500, 500), point(5, 2500, 500), point(6, 2500, 2500, 10, 0.01)]
    model = rolling(evidence=evidence, trail=trail, **said)
    for revision in model["status"]["revisions"]:
        revision["recipe"] = {"digest": "sha256:" + "a" * 64}
    return model


class Text(html.parser.HTMLParser):
    """What a reader sees, and every attribute that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("href", "src", "data", "action", "srcset")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    def __str__(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words)).strip()


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    page = rollout_page.page(reported(), NOW)
    found = Text(page)
    assert found.fetched == []
    assert "script" not in found.tags
    assert "url(" not in page
    assert "@import" not in page


def test_what_a_status_says_cannot_become_markup() -> None:
    page = rollout_page.page(reported(message="<script>alert(1)</script>", state="RolledBack"), NOW)
    assert "script" not in Text(page).tags


def test_a_rollout_that_goes_on_says_so_and_how_it_stands() -> None:
    said = str(Text(rollout_page.page(reported(), NOW)))
    assert (
        "Began 2026-01-02 03:00:00 UTC and goes on: this is how it stood after 10 min, at 2026-01-02 03:10:00 UTC."
        in said
    )
    assert (
        "Revision 5e6f7a8b has 25 % of the traffic, step 2 of 3. "
        "So far 0.2 % of 1,200 requests failed, of the stable revision 0.1 % of 10,220." in said
    )
    assert "✓ 5 % for 2m ▶ 25 % for 5m 50 % 100 %" in said
    assert "requests that new revision stable revision failed 3 % 36 of 1,200 0.0978 % 10 of 10,220" in said
    assert "were answered wrongly, of those with feedback 4 % 4 of 100 1.2 % 24 of 2,000" in said
    assert "took over 10 ms 1.03 % 12 of 1,164 0.999 % 102 of 10,210" in said
    assert "took over 2.2 ms 0 % 0 of 1,164 0.0294 % 3 of 10,210" in said
    assert "rolled back from 100 good enough from 20" in said


def test_one_that_ended_says_how_and_how_long_it_took() -> None:
    message = "revision 5e6f7a8b was rolled back at step 2 of 3, with 25 % of the traffic: worse"
    said = str(Text(rollout_page.page(reported(state="RolledBack", message=message), NOW)))
    assert (
        "digits rolled back Revision 5e6f7a8b in place of 1a2b3c4d . Began 2026-01-02 03:00:00 UTC, took 12 min 5 s."
        in said
    )
    assert "Revision 5e6f7a8b was rolled back at step 2 of 3, with 25 % of the traffic: worse." in said
    assert "✓ 5 % for 2m ✗ 25 % for 5m 50 % 100 %" in said


def test_shares_are_stairs_from_the_beginning_to_the_end() -> None:
    page = rollout_page.page(reported(), NOW)
    # 10 minutes are 666 wide from 64 on, 100 % are 208 high from 220 up.
    asked = "M64.0 220.0H130.6V209.6H197.2V209.6H397.0V168.0H463.6V168.0H730.0"
    observed = "M64.0 220.0H130.6V220.0H197.2V209.6H397.0V209.6H463.6V168.0H730.0"
    assert re.findall(r'class="(asked|observed)" d="([^"]*)"', page) == [("asked", asked), ("observed", observed)]


def test_evidence_is_drawn_by_logarithms_between_the_bounds() -> None:
    page = rollout_page.page(reported(), NOW)
    # From 0.1, the least that is drawn, to ten times the larger bound, 1,000, in 208: 52 each power.
    against = "M64.0 168.0H130.6V168.0H197.2V168.0H397.0V168.0H463.6V116.0H730.0"
    in_favour = "M64.0 168.0H130.6V168.0H197.2V168.0H397.0V168.0H463.6V220.0H730.0"
    drawn = re.findall(r'<path class="(against|inFavour)" d="([^"]*)"', page)
    assert drawn == [("against", against), ("inFavour", in_favour)]
    assert re.findall(r'<line class="guide (against|inFavour)" x1="64" x2="730" y1="([^"]*)"', page) == [
        ("against", "64.0"),
        ("inFavour", "100.3"),
    ]


def test_without_an_analysis_there_is_no_evidence_and_before_the_first_point_no_line() -> None:
    model = reported()
    for gone in ("evidence", "against", "inFavour", "trail", "detection", "verdict"):
        del model["status"]["rollout"][gone]
    page = rollout_page.page(model, NOW)
    assert "<h2>Evidence</h2>" not in page
    assert "<path" not in page
    assert "What was counted" not in page
