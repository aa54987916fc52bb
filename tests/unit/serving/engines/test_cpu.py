import os
from pathlib import Path

import pytest

from serving.engines import cpu

AFFINITY = len(os.sched_getaffinity(0))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_features_are_told_under_either_of_the_names_that_linux_gives_them(tmp_path: Path) -> None:
    for position, name in enumerate(("flags", "Features")):
        write(tmp_path / str(position), f"processor\t: 0\n{name}\t\t: fpu avx2\n\nprocessor\t: 1\n{name}\t: fpu\n")
        assert cpu.features(tmp_path / str(position)) == {"fpu", "avx2"}
    assert cpu.features(tmp_path / "none") == frozenset()


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


def machine(folder: Path, places: dict[int, tuple[int, int, int]]) -> Path:
    """A /sys/devices/system with node, package and core of each CPU."""
    for cpu_number, (node, package, core) in places.items():
        topology = folder / "cpu" / f"cpu{cpu_number}" / "topology"
        topology.mkdir(parents=True)
        (topology.parent / f"node{node}").mkdir()
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core}\n")
    return folder


def test_processes_get_whole_cores_of_one_node_where_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {number: (number % 2, number % 2, number // 2 % 2) for number in range(8)}
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(places))

    assert cpu.split(4, machine(tmp_path, places)) == [{0, 4}, {2, 6}, {1, 5}, {3, 7}]


def test_processes_share_cpus_where_there_are_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})

    assert [len(cpus) for cpus in cpu.split(5, tmp_path)] == [1] * 5
    assert set().union(*cpu.split(5, tmp_path)) == {0, 1}


@pytest.mark.parametrize(
    ("described", "computes"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: asimd bf16\n", False),
        ("", False),
    ],
)
def test_what_the_cpu_says_decides_whether_it_computes_bf16(tmp_path: Path, described: str, computes: bool) -> None:
    write(tmp_path / "cpuinfo", described)
    assert cpu.computes_bf16(tmp_path / "cpuinfo") is computes
    assert not cpu.computes_bf16(tmp_path / "absent")
