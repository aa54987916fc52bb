import re
from pathlib import Path

import pytest

from serving import cli
from serving.contract import Exit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--http-port", "99999"],
         "argument --http-port: '99999' is no port; expected a number from 0 to 65535"),
        (["serve", "--max-request-bytes", "0"], "argument --max-request-bytes: '0' is no number from 1 up"),
        (["serve", "--settle-s", "soon"], "argument --settle-s: 'soon' is no number of seconds from 0 up"),
        (["catalog"], "the following arguments are required: --index"),
        (["fetch", "--uri", "x"], "one of the arguments --to --store is required"),
        (["fetch", "--uri", "x", "--to", "a", "--store", "b"], "argument --store: not allowed with argument --to"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments, {}) == Exit.USAGE

    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_defaults_come_from_the_environment() -> None:
    env = {
        "PENSTOCK_MODEL": "digits",
        "PENSTOCK_MODEL_DIR": "/models",
        "PENSTOCK_HOST": "127.0.0.1",
        "PENSTOCK_HTTP_PORT": "81",
        "PENSTOCK_GRPC_PORT": "91",
    }

    options = cli._parser(env).parse_args(["serve"])

    assert (options.name, [str(path) for path in options.paths], options.host) == ("digits", ["/models"], "127.0.0.1")
    assert (options.http_port, options.grpc_port) == (81, 91)


def test_the_share_of_logged_requests_may_name_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli._parser({"PENSTOCK_LOG_REQUESTS": "0.01"})

    assert parser.parse_args(["serve"]).log_requests == (0.01, None)
    assert parser.parse_args(["serve", "--log-requests", "1:/tmp/a:b"]).log_requests == (1.0, Path("/tmp/a:b"))
    assert cli.main(["serve", "--log-requests", "2"], {}) == Exit.USAGE
    assert "'2' is no share of requests from 0 to 1" in capsys.readouterr().err


def test_help_shows_every_default_as_it_would_be_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    assert cli.main(["serve", "--help"], {"PENSTOCK_MODEL_DIR": "/100%/models"}) == Exit.OK

    said = capsys.readouterr().out
    assert re.findall(r"\(default: (.*)\)", said) == [
        "/100%/models", "67108864", "127.0.0.1", "8080", "0", "9000", "67108864", "1024", "1",
    ]  # fmt: skip
    assert re.findall(r"^(\w+):", said, re.MULTILINE) == [
        "usage", "options", "models", "listening", "limits", "watching", "processes",
    ]  # fmt: skip


def test_an_environment_that_cannot_be_is_refused_like_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve"], {"PENSTOCK_HTTP_PORT": "web"}) == Exit.USAGE

    assert "'web' is no port; expected a number from 0 to 65535" in capsys.readouterr().err
