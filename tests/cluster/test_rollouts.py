"""A rollout moves as the evidence says, in a cluster, under steady load over both protocols."""

from __future__ import annotations

import pathlib

import pytest

from tests.rig import rollouts
from tests.rig.cluster import Cluster
from tests.rig.installation import Installation
from tests.rig.rollouts import Namespace


@pytest.fixture
def place(cluster: Cluster, penstock: Installation, namespace: str, tmp_path: pathlib.Path) -> Namespace:
    return Namespace(cluster, namespace, tmp_path)


async def test_a_good_revision_is_promoted(place: Namespace) -> None:
    rollouts.holds(await rollouts.play(place, rollouts.GOOD), "Promoted", "not worse than allowed: 0 % of ")


async def test_a_revision_that_fails_a_twentieth_is_rolled_back(place: Namespace) -> None:
    played = await rollouts.play(place, rollouts.FAILS)
    rollouts.holds(played, "RolledBack", "requests failed, of the stable revision 0 %")
