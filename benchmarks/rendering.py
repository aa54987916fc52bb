"""Tables and plots from ``serving.json``, without measuring again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.workloads import FIGURES

_SHOWN = ("rate", "p50_ms", "p99_ms", "cpu_us", "start_s", "start_cpu_s", "pss_mib")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))


def run(options: argparse.Namespace) -> int:
    """Render, and print the text."""
    render(options.results)
    return 0


def render(folder: Path) -> None:
    """Write ``serving.md`` and a plot for each workload beside ``serving.json``, and print the text."""
    results = json.loads((folder / "serving.json").read_text())
    text = markdown(results)
    (folder / "serving.md").write_text(text)
    plot(results["rows"], results["workloads"], folder / "serving.svg")
    print(text)


def markdown(results: Mapping[str, Any]) -> str:
    """What was asked, which targets were met, and a table for each workload."""
    rows = results["rows"]
    lines = [f"# {results['question']}", ""]
    lines += [f"- {name}: {value}" for name, value in results["origin"].items()]
    computed = ", ".join(f"{name} {_number(value)} µs" for name, value in sorted(results["compute_us"].items()))
    lines += ["", f"One inference in ONNX Runtime alone, CPU: {computed}."]
    lines += ["", *(f"**Not measured: {name}: {why}**" for name, why in results["failures"].items()), ""]
    lines += [*_targets(rows), "", "![ratios](serving.svg)"]
    for workload, about in results["workloads"].items():
        own = [row for row in rows if row["workload"] == workload]
        lines += ["", f"## {about} (`{workload}`)", ""]
        if own[0]["commit"] != results["origin"]["commit"]:
            lines += [f"Measured at commit {own[0]['commit']}.", ""]
        lines += _table(own)
    return "\n".join(lines) + "\n"


def _targets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| workload | figure | peer | ratio (range) | target | |", "|---|---|---|---|---|---|"]
    for row in rows:
        for name, found in row["figures"].items():
            if found["target"] is not None:
                sign, verdict = "≥" if FIGURES[name].at_least else "≤", "met" if found["met"] else "**missed**"
                cells = (row["workload"], FIGURES[name].about, row["peer"], _ratio(found), f"{sign}{found['target']:g}")
                lines.append(f"| {' | '.join(cells)} | {verdict} |")
    return lines if len(lines) > 2 else []


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [name for name in _SHOWN if name in rows[0]["figures"]]
    heads = [f"{FIGURES[name].about}, {'peer/ours' if FIGURES[name].peer_to_ours else 'ours/peer'}" for name in names]
    lines = [f"| | {' | '.join(heads)} | rounds |", f"|---|{'---|' * (len(heads) + 1)}"]
    lines.append(f"| **penstock** | {' | '.join(_number(rows[0]['figures'][name]['ours']) for name in names)} | |")
    for row in rows:
        cells = [f"{_number(found['peer'])} · {_ratio(found)}" for found in map(row["figures"].__getitem__, names)]
        disturbed = f", {row['disturbed']} disturbed" if row["disturbed"] else ""
        lines.append(f"| {row['peer']} | {' | '.join(cells)} | {row['rounds']}{disturbed} |")
    return lines


def _ratio(found: Mapping[str, Any]) -> str:
    return f"{_number(found['ratio'])} ({_number(found['low'])}–{_number(found['high'])})"


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plot(rows: Sequence[Mapping[str, Any]], workloads: Mapping[str, str], path: Path) -> None:
    """How many times the peer's each ratio is, a line a workload and peer, with the range of the rounds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "penstock"  # the same results give the same file
    from matplotlib import pyplot

    loads = [(row, row["figures"]["rate"]) for row in rows if "rate" in row["figures"]]
    if not loads:
        return
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.22 * len(loads)), layout="constrained")
    places = range(len(loads), 0, -1)
    for place, (_, found) in zip(places, loads, strict=True):
        axes.plot([found["low"], found["high"]], [place, place], color="#9ab", linewidth=3, solid_capstyle="round")
        axes.plot(found["ratio"], place, "o", color="#246" if found["met"] is not False else "#c22", markersize=5)
        if found["target"] is not None:
            axes.plot(found["target"], place, "|", color="black", markersize=10)
    axes.set_yticks(list(places), [f"{row['workload']}  {row['peer']}" for row, _ in loads], fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes.axvline(1, color="#888", linewidth=0.8)
    title = (
        "Penstock's requests/s as a multiple of the peer's\nmedian and range of paired rounds, | target, red: missed"
    )
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", color="#ddd")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
