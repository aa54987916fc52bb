import hashlib
import json
import re
from pathlib import Path

import pytest

from serving import cli
from serving.contract import Exit
from serving.engines import cpu


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--http-port", "99999"],
         "argument --http-port: '99999' is no port; expected a number from 0 to 65535"),
        (["serve", "--max-request-bytes", "0"], "argument --max-request-bytes: '0' is no number from 1 up"),
        (["serve", "--settle-s", "soon"], "argument --settle-s: 'soon' is no number of seconds from 0 up"),
        (["serve", "--workers", "many"],
         "argument --workers: 'many' is no number from 1 up, and not 'auto' (one process a CPU)"),
        (["serve", "--memory-budget", "1 G"],
         "argument --memory-budget: '1 G' is no size; expected a quantity such as 512Mi or 2Gi"),
        (["serve", "https://here/m.onnx"],
         "argument PATH: 'https://here/m.onnx' is no path on this machine; run 'penstock fetch --uri "
         "https://here/m.onnx --to DIR' first, then serve DIR"),
        (["catalog"], "the following arguments are required: --index"),
        (["fetch", "--uri", "x", "--to", "a", "--otherwise", "fp32=s3://b/m.onnx"],
         "argument --otherwise: 'fp32=s3://b/m.onnx' is not VARIANT=URI@sha256:HEX"),
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
        "/100%/models", "64Mi", "127.0.0.1", "8080", "0", "9000", "67108864", "1024", "1",
    ]  # fmt: skip
    assert re.findall(r"^(\w+):", said, re.MULTILINE) == [
        "usage", "options", "models", "listening", "limits", "watching", "processes",
    ]  # fmt: skip


def test_an_environment_that_cannot_be_is_refused_like_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve"], {"PENSTOCK_HTTP_PORT": "web"}) == Exit.USAGE

    assert "'web' is no port; expected a number from 0 to 65535" in capsys.readouterr().err


def test_sizes_are_written_like_those_of_the_settings() -> None:
    said = cli._parser({}).parse_args(["serve", "--memory-budget", "1G", "--response-cache-bytes", "2Gi"])
    assert (said.memory_budget, said.response_cache_bytes) == (10**9, 2**31)

    assert cli._parser({}).parse_args(["serve"]).response_cache_bytes == 64 * 2**20
    assert cli._parser({}).parse_args(["serve", "--response-cache-bytes", "0"]).response_cache_bytes == 0


def test_an_unknown_argument_is_answered_with_the_usage_of_its_own_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "models", "--bogus"], {}) == Exit.USAGE

    said = capsys.readouterr().err
    assert said.startswith("usage: penstock serve ")
    assert said.endswith("penstock serve: error: unrecognized arguments: --bogus\n")


def test_a_fetch_takes_the_other_variant_where_the_processor_lacks_what_the_first_was_proven_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for variant in ("int8", "fp32"):
        (tmp_path / f"{variant}.onnx").write_text(variant)
        digest = hashlib.sha256(variant.encode()).hexdigest()
        said.append((str(tmp_path / f"{variant}.onnx"), f"sha256:{digest}"))
    (uri, digest), (other_uri, other_digest) = said
    fetch = ["fetch", "--uri", uri, "--digest", digest, "--to", str(tmp_path / "to")]
    otherwise = [*fetch, "--otherwise", f"fp32={other_uri}@{other_digest}", "--for-cpu"]

    assert cli.main([*otherwise, "warp_drive"], {}) == Exit.OK
    assert json.loads(capsys.readouterr().out)["variant"] == "fp32"
    assert (tmp_path / "to" / "fp32.onnx").read_text() == "fp32"
    env = {"PENSTOCK_VARIANT": "int8", "PENSTOCK_MODEL_DIR": str(tmp_path / "to")}
    assert cli._variant(env) == "fp32"

    (tmp_path / "to" / "fp32.onnx").unlink()
    has = sorted(cpu.features())[0]
    assert cli.main([*otherwise, f"warp_drive,{has}"], {}) == Exit.OK
    assert "variant" not in json.loads(capsys.readouterr().out)
    assert (tmp_path / "to" / "int8.onnx").read_text() == "int8"
    assert cli._variant(env) == "int8"


def test_a_server_that_was_given_no_path_says_where_it_looked_and_how_to_give_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["serve"], {"PENSTOCK_MODEL_DIR": str(tmp_path / "models")}) == Exit.REFUSED

    assert capsys.readouterr().err == (
        f"error: no path was given, and {tmp_path}/models, where a model is looked for then, does not exist; "
        "give a model file or a folder with models: penstock serve PATH\n"
    )
