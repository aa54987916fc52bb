"""The operator is killed at every write of a rollout: before it reaches the API server, after its answer, and after it
with the answer lost, which the operator still tries to mend. The next one goes on from there, and what is left in the
end, and what was created and deleted on the way, is what a rollout leaves whose operator lives.

To be killed before a write is to be killed after the one before it, where both belong to one pass: that is played once.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from tests.apiserver import stage
from tests.apiserver.conftest import DIGEST_A, DIGEST_B, model
from tests.apiserver.stage import Journal, Moment, Stage, play
from tests.rig.control_plane import ControlPlane

ROLLOUT = {
    "steps": [{"weight": 10, "for": "15s"}, {"weight": 50, "for": "15s"}],
    "analysis": {"maxErrorRateIncrease": 0.05},
    "maxSurge": 1,
}
MOST = 60
AT_ONCE = 3
"""Rollouts, each in a namespace of its own."""


@dataclasses.dataclass
class Run:
    """What one rollout left behind, and what it took."""

    journal: Journal
    began: int
    """The number of the first write that belongs to it."""
    left: dict[str, Any]


async def rollout(stage: Stage, failing: float, at: int | None = None, moment: Moment = "before") -> Run:
    """From one revision to the next, of which a share of the requests is ``failing``."""
    journal, world = Journal(at=at, moment=moment), await stage.world()
    await world.apply(model(digest=DIGEST_A, replicas=2, rollout=ROLLOUT))
    await play(stage, journal, world, [""], MOST)
    began, world.failing = len(journal.tried), failing
    await world.apply(model(digest=DIGEST_B, replicas=2, rollout=ROLLOUT))
    await play(stage, journal, world, ["Promoted", "RolledBack"], MOST)
    for paths in (journal.tried, journal.created, journal.deleted):
        paths[:] = [path.replace(world.namespace, "NAMESPACE") for path in paths]
    return Run(journal, began, await world.left())


async def tried(plane: ControlPlane, failing: float, whole: Run, faults: Iterator[tuple[int, Moment]]) -> None:
    """Take ``faults`` as they come, and hold the rollout that had each against the ``whole`` one."""
    async with stage.opened(plane) as opened:
        for at, moment in faults:
            where = f"killed {moment} write {at}, {whole.journal.tried[at]}"
            cut = await rollout(opened, failing, at, moment)
            assert cut.journal.fired, where
            assert cut.journal.tried[: at + 1] == whole.journal.tried[: at + 1], where
            assert cut.left == whole.left, where
            assert sorted(cut.journal.created) == sorted(whole.journal.created), where
            assert sorted(cut.journal.deleted) == sorted(whole.journal.deleted), where


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("ends", "failing"), [("Promoted", 0.0), ("RolledBack", 0.3)])
async def test_a_rollout_ends_the_same_wherever_its_operator_is_killed(
    unattended: ControlPlane, ends: str, failing: float
) -> None:
    async with stage.opened(unattended) as opened:
        whole = await rollout(opened, failing)
    assert whole.left["Model/digits"]["status"]["rollout"]["state"] == ends
    numbers = range(whole.began, len(whole.journal.tried))
    assert len(numbers) >= 10
    faults = iter([(at, moment) for at in numbers for moment in get_args(Moment) if not _is_played(whole, at, moment)])
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(tried(unattended, failing, whole, faults))


def _is_played(whole: Run, at: int, moment: Moment) -> bool:
    """Whether it is the same as being killed after the write before."""
    passes = whole.journal.passes
    return moment == "before" and passes[at] == passes[at - 1]
