import os
from pathlib import Path

import pytest

from serving.engines import cpu

AFFINITY = len(os.sched_getaffinity(0))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max 100000\n", AFFINITY),
        ("50000 100000\n", 1),
        ("100000 100000\n", 1),
        ("150000 100000\n", min(2, AFFINITY)),
        ("100000000 100000\n", AFFINITY),
        ("nonsense\n", AFFINITY),
    ],
)
def test_the_limit_is_the_quota_of_a_version_2_cgroup_within_the_affinity(
    tmp_path: Path, text: str, limit: int
) -> None:
    write(tmp_path / "cpu.max", text)

    assert cpu.limit(tmp_path) == limit


@pytest.mark.parametrize(("quota", "limit"), [("-1\n", AFFINITY), ("50000\n", 1)])
def test_the_limit_is_the_quota_of_a_version_1_cgroup(tmp_path: Path, quota: str, limit: int) -> None:
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", quota)
    write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000\n")

    assert cpu.limit(tmp_path) == limit


def test_without_a_cgroup_the_limit_is_the_affinity(tmp_path: Path) -> None:
    assert cpu.limit(tmp_path) == AFFINITY
