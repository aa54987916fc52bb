from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving import cli
from serving.contract import Exit
from serving.rayserve import server


def test_ray_gets_a_new_token_and_nothing_of_the_environment_but_what_it_needs() -> None:
    own = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "secret", "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "elsewhere"}
    told, again = server.environment("127.0.0.1", own), server.environment("127.0.0.1", own)

    assert (told["PATH"], told["RAY_AUTH_MODE"], told["PENSTOCK_HOST"]) == ("/bin", "token", "127.0.0.1")
    assert not {"AWS_SECRET_ACCESS_KEY", "RAY_ADDRESS"} & told.keys()
    assert len(told["RAY_AUTH_TOKEN"]) == 64
    assert told["RAY_AUTH_TOKEN"] != again["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, (), " does not exist; give a model file or a folder with models"),
        (b"no onnx", (), " is no whole ONNX model"),
        (b"no onnx", ("--settings", '{"batchng": {}}'), "--settings (or PENSTOCK_SETTINGS) cannot be taken"),
    ],
)
def test_what_cannot_be_served_is_told_before_ray_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, arguments: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)

    code = cli.main(["rayserve", str(path), *arguments], {})

    assert code == (Exit.FAILED if arguments else Exit.REFUSED)
    assert message in capsys.readouterr().err


def test_what_killed_servers_left_is_removed_and_what_live_ones_have_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_FOLDERS", tmp_path)
    gone = 2**22 + 1  # more than any process can have
    (tmp_path / f"penstock-ray-{gone}-a" / "ray").mkdir(parents=True)
    (tmp_path / f"penstock-ray-{os.getppid()}-b").mkdir()

    with server._scratch() as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / f"penstock-ray-{os.getppid()}-b"])
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
