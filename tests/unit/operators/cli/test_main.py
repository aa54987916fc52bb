"""Errors are a line and an exit code, and nothing is loaded that a command does not use."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from operators.cli import crds, main


@pytest.fixture(autouse=True)
def nowhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A home without a kubeconfig and without a ``penstock up``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "XDG_STATE_HOME", "PENSTOCK_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["get", "pods"], "'pods'; choose models, endpoints or runtimes"),
        (["get", "models", "-o", "xml"], "'xml'; choose wide, json or yaml"),
        (["delete", "model"], "give either KIND and NAME, or -f FILE"),
        (["delete", "model", "digits", "-f", "model.yaml"], "give either KIND and NAME, or -f FILE"),
        (["infer", "digits", "--input", "seven.png", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["apply", "model.yaml", "other.yaml"], "write -f before each file: apply -f model.yaml -f other.yaml"),
        (["describe", "model"], "give one name as well: describe model NAME"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_right(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(main.app, arguments)
    assert result.exit_code == 2
    assert problem in result.stderr


def run(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "operators.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_failure_is_exit_code_1_and_one_line(nowhere: pathlib.Path) -> None:
    message = (
        f"error: no `penstock up` runs on {nowhere}/.local/state/penstock, and no cluster is set up: "
        "start `penstock up`, name the folder of one with --data-dir, or a cluster with --kubeconfig\n"
    )
    assert run("get", "models") == (1, "", message)


@pytest.mark.parametrize("command", [["get", "models"], ["operator"]])
def test_a_kubeconfig_that_does_not_exist_is_named(nowhere: pathlib.Path, command: list[str]) -> None:
    message = f"error: kubeconfig {nowhere}/nope: no such file; name another with --kubeconfig\n"
    assert run(*command, "--kubeconfig", f"{nowhere}/nope") == (1, "", message)


def test_without_anything_running_down_says_so_and_logs_are_read_from_files(nowhere: pathlib.Path) -> None:
    folder = nowhere / ".local/state/penstock"
    assert run("down") == (0, f"nothing was running on {folder}\n", "")
    (folder / "logs/team/digits").mkdir(parents=True)
    (folder / "logs/team/digits/1a2b3c4d.log").write_text("serving digits\n")
    assert run("logs", "team/digits") == (0, "==> 1a2b3c4d.log <==\nserving digits\n", "")
    assert run("logs", "digits")[0] == 1


def test_the_version_is_a_command_and_an_option() -> None:
    version = importlib.metadata.version("penstock")
    assert [run("version"), run("--version")] == [(0, f"{version}\n", "")] * 2


def test_a_reader_that_has_seen_enough_ends_the_output_in_silence() -> None:
    script = f"{sys.executable} -m operators.cli.main --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""


def test_definitions_are_written_and_checked(tmp_path: pathlib.Path) -> None:
    assert run("crds", str(tmp_path / "crds")) == (0, "", "")
    assert run("crds", str(tmp_path / "crds"), "--check") == (0, "", "")
    name = next(iter(crds.render()))
    (tmp_path / "crds" / name).write_text("old")
    assert run("crds", str(tmp_path / "crds"), "--check") == (
        1,
        "",
        f"error: {tmp_path}/crds: out of date: {name}; run `penstock crds`\n",
    )


def test_the_model_server_is_run_with_the_arguments_as_they_are() -> None:
    code, out, error = run("serve", "--help")
    assert (code, error) == (0, "")
    assert out.startswith("usage: penstock serve")


def test_help_and_get_load_nothing_they_do_not_use() -> None:
    heavy = ("pydantic", "kubernetes", "fastapi", "httpx", "numpy", "yaml", "operators.api.kinds", "operators.cli.up")
    code = f"import sys, operators.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "[]\n"
