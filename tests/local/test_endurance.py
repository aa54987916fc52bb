"""The endurance run in small: every kind of event once, beside some 20,000 requests over six protocols."""

from pathlib import Path

from benchmarks.endurance.run import CLIENTS, EVENTS, endure


async def test_no_request_fails_or_gets_a_wrong_answer_while_models_and_processes_come_and_go(tmp_path: Path) -> None:
    outcome = await endure(tmp_path, 20_000)

    assert (outcome.score.notes, outcome.problems) == ([], [])
    assert outcome.is_clean()
    assert set(outcome.score.answered) == set(CLIENTS)
    assert sum(outcome.score.answered.values()) == outcome.score.sent >= 20_000
    assert set(outcome.events) == set(EVENTS)
    assert len(outcome.score.whole_versions) >= 3
