import os
from pathlib import Path

import pytest

from tests.rig import binaries
from tests.tiers import TIERS, Builds, Outcome, control_plane, judged, main, node, not_run, table


def report(tests: int, failures: int = 0, errors: int = 0, skipped: int = 0) -> str:
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    return f'<?xml version="1.0"?><testsuites><testsuite name="pytest" {counts}/></testsuites>'


@pytest.mark.parametrize(
    ("exit_code", "written", "outcome"),
    [
        (0, report(7), Outcome("unit", "passed", passed=7, seconds=3.0)),
        (
            1,
            report(7, failures=2, errors=1),
            Outcome("unit", "failed", passed=4, failed=3, seconds=3.0, reason="pytest ended with 1"),
        ),
        (
            0,
            report(7, skipped=1),
            Outcome(
                "unit",
                "failed",
                passed=6,
                failed=1,
                seconds=3.0,
                reason="1 skipped: what a test needs, its tier declares",
            ),
        ),
        (5, report(0), Outcome("unit", "failed", failed=1, seconds=3.0, reason="no tests were found")),
        (
            3,
            report(7),
            Outcome("unit", "failed", passed=7, failed=1, seconds=3.0, reason="pytest ended with 3"),
        ),
        (
            4,
            None,
            Outcome("unit", "failed", failed=1, seconds=3.0, reason="pytest ended with 4 and no report"),
        ),
    ],
)
def test_a_tier_passes_only_if_tests_ran_and_every_one_passed(
    exit_code: int, written: str | None, outcome: Outcome
) -> None:
    assert judged("unit", exit_code, written, 3.0) == outcome


@pytest.mark.parametrize("environ", [{}, {"CI": ""}, {"CI": "false"}])
def test_a_tier_that_cannot_run_is_named_on_a_laptop(environ: dict[str, str]) -> None:
    assert not_run("apiserver", "needs go", environ) == Outcome("apiserver", "not run", reason="needs go")


@pytest.mark.parametrize("environ", [{"CI": "true"}, {"CI": "1"}, {"CI": "True"}])
def test_a_tier_that_cannot_run_is_a_failure_in_ci(environ: dict[str, str]) -> None:
    reason = "CI must run every tier: needs go"
    assert not_run("apiserver", "needs go", environ) == Outcome("apiserver", "failed", failed=1, reason=reason)


def test_a_control_plane_is_built_with_go() -> None:
    assert control_plane({}, lambda name: f"/usr/bin/{name}") is None
    assert control_plane({}, lambda name: None) == (
        "needs go on PATH to build etcd, kube-apiserver, kube-controller-manager, kubectl, "
        "or a KUBEBUILDER_ASSETS that has them"
    )


def test_a_control_plane_that_is_given_whole_needs_no_go(tmp_path: Path) -> None:
    environ = {"KUBEBUILDER_ASSETS": str(tmp_path)}
    for target in binaries.TARGETS[:-1]:
        (tmp_path / target.name).touch()
    assert control_plane(environ, lambda name: None) == (
        "needs go on PATH to build kubectl, or a KUBEBUILDER_ASSETS that has them"
    )
    (tmp_path / binaries.TARGETS[-1].name).touch()
    assert control_plane(environ, lambda name: None) is None


def test_a_node_needs_root_and_another_cluster_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lambda name: f"/usr/bin/{name}"  # noqa: E731
    assert node({}, lambda name: None) == "needs go on PATH to build Kubernetes, or at least kubectl and helm"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert node({}, found) == "needs root on Linux to start a node, or a KUBECONFIG that points to a cluster for tests"
    assert node({"KUBECONFIG": "kind.yaml"}, found) is None


def test_only_tiers_are_built_for() -> None:
    assert binaries.TIERS.keys() <= {tier.name for tier in TIERS}


def test_a_tier_that_needs_no_build_waits_for_none() -> None:
    with Builds({}) as builds:
        assert builds.failure("unit") is None


def test_the_table_ends_with_totals_that_stand_alone() -> None:
    outcomes = [
        Outcome("unit", "passed", passed=120, seconds=8.4),
        Outcome("local", "failed", passed=9, failed=1, seconds=61.0, reason="pytest ended with 1"),
        Outcome("apiserver", "not run", reason="needs go"),
    ]
    assert table(outcomes).splitlines() == [
        "tier       result   passed  failed  seconds",
        "unit       passed      120       0        8",
        "local      failed        9       1       61  pytest ended with 1",
        "apiserver  not run       0       0        0  needs go",
        "",
        "129 passed, 1 failed",
    ]


def test_an_unknown_tier_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["unti"], {})
    assert ended.value.code == 2
    assert (
        "no tier is named unti; there are unit, local, conformance, storage, engines, variants, apiserver, cluster"
        in capsys.readouterr().err
    )
