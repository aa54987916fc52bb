"""``penstock build``: a Model's variants made by a child process, its progress on the terminal, its report as a table.

The builder is the serving side's: it alone has the libraries that read and change models.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from operators.api.errors import OperatorError
from operators.api.kinds import parse
from operators.api.model import Model
from operators.cli import manifests, show
from operators.planning import builds
from serving.contract import Exit


class BuildFailed(OperatorError):
    """The build came to no result; the message says why and what to do."""


def main(file: str, name: str | None, store: pathlib.Path, *, as_json: bool) -> None:
    """Build the Model in ``file`` and print its report.

    Raises:
        BuildFailed: source or data cannot be used.
    """
    model = model_of(file, name)
    report = run(model, store)
    print(json.dumps(report, indent=1) if as_json else table(report), end="\n" if as_json else "")


def run(model: Model, store: pathlib.Path) -> dict[str, Any]:
    """The report of the build, made now unless it was there."""
    command = [sys.executable, "-m", "serving", "build", "--spec", "-", "--store", str(store)]
    report: dict[str, Any] | None = None
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as builder,
    ):
        assert builder.stdin
        assert builder.stdout
        try:
            builder.stdin.write(json.dumps(builds.document(model)))
            builder.stdin.close()
            with _progress() as told:
                for line in builder.stdout:
                    message = json.loads(line)
                    if "progress" in message:
                        told(message["progress"])
                    else:
                        report = message["report"]
        except BaseException:
            builder.terminate()
            raise
        code = builder.wait()
        errors.seek(0)
        said = errors.read()
    if code != Exit.OK or report is None:
        words = said.strip().splitlines()[-1:] or [f"the builder ended with code {code}"]
        raise BuildFailed(f"model {model.metadata.name}: {words[0].removeprefix('error: ')}")
    return {"model": model.metadata.name, **report}


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    rows: list[show.Row] = [("VARIANT", "SIZE", "QUALITY", "DROP", "AT MOST", "CPU MS", "GAIN", "MAY SERVE", "WHY")]
    for one in report["variants"]:
        quality = one.get("quality")
        cpu_ms = one.get("cpuMs", {})
        rows.append(
            (
                f"{one['name']} *" if one["name"] == report["selected"] else one["name"],
                f"{one['bytes'] / 1024:.0f} KiB" if "bytes" in one else "",
                _figure(quality, "value"),
                _figure(quality, "drop"),
                _figure(quality, "dropUpperBound"),
                f"{next(iter(cpu_ms.values())):.2f}" if cpu_ms else "",
                f"{one['gain']:.1f}x" if "gain" in one else "",
                "yes" if one["accepted"] else "no gain" if one["proven"] else "no",
                one["reason"],
            )
        )
    choice, latency = report["choice"], report["latency"]
    how = f"{choice['engine']}, threads: {choice['threads']}, best batch: {choice['batch']}"
    said = [f"* {report['selected']} is the one to serve ({how}); report: {report['page']}"]
    said += [f"  {latency['reason']}"] if latency else []
    said += [f"! {warning}" for warning in report["warnings"]]
    return "\n".join((show.table(rows), *said, ""))


def _figure(quality: dict[str, Any] | None, name: str) -> str:
    """Empty where there is none: a metric has no value on samples that say nothing of it."""
    return f"{quality[name]:.4f}" if quality and quality[name] is not None else ""


def model_of(file: str, name: str | None) -> Model:
    """The Model in a file; BuildFailed where there is none of that name, or several."""
    found = [parse(one.data) for one in manifests.load([file], "default") if one.kind.kind == "Model"]
    models = [one for one in found if isinstance(one, Model) and name in (None, one.metadata.name)]
    if len(models) != 1:
        have = ", ".join(one.metadata.name for one in found) or "none"
        step = f"no Model is called {name}" if name else "name one with --name"
        raise BuildFailed(f"{file} has {len(found)} Models ({have}): {step}")
    return models[0]


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows how far the build is: a bar on a terminal, a line for each step elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = ""

        def line(told: dict[str, Any]) -> None:
            nonlocal last
            step = _step(told)
            if step != last:
                print(f"{told['share']:4.0%}  {step} {_left(told)}".rstrip(), file=sys.stderr, flush=True)
            last = step

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=1.0, left="")
        yield lambda told: progress.update(task, description=_step(told), completed=told["share"], left=_left(told))


def _step(told: dict[str, Any]) -> str:
    return f"{told['variant']}: {told['stage']}" if told["variant"] else str(told["stage"])


def _left(told: dict[str, Any]) -> str:
    return f"(about {told['left_s']:.0f} s left)" if told["left_s"] else ""
