import json
from pathlib import Path
from typing import Any

from benchmarks import rendering


def row(peer: str, target: float | None, met: bool | None, disturbed: int = 0, commit: str = "abc") -> dict[str, Any]:
    rate = {"ours": 12345.6, "peer": 1234.5, "ratio": 10.0, "low": 9.5, "high": 12.25, "target": target, "met": met}
    cpu = {"ours": 81.0, "peer": 810.0, "ratio": 10.0, "low": 9.0, "high": 11.0, "target": None, "met": None}
    figures = {"rate": rate, "cpu_us": cpu}
    about = {"workload": "json-mlp-c8", "peer": peer, "rounds": 5, "disturbed": disturbed, "commit": commit}
    return {**about, "figures": figures}


RESULTS = {
    "question": "How fast?",
    "origin": {"machine": "x86_64", "commit": "abc"},
    "failures": {"start": "kserve did not"},
    "workloads": {"json-mlp-c8": "REST JSON, 8 connections"},
    "compute_us": {"mlp": 6.25},
    "rows": [row("kserve", 8.0, True), row("triton", 11.0, False, disturbed=2), row("ray", None, None)],
}


def test_the_page_says_what_was_met_and_missed_and_shows_every_peer_beside_ours() -> None:
    assert rendering.markdown(RESULTS).splitlines() == [
        "# How fast?",
        "",
        "- machine: x86_64",
        "- commit: abc",
        "",
        "One inference in ONNX Runtime alone, CPU: mlp 6.25 µs.",
        "",
        "**Not measured: start: kserve did not**",
        "",
        "| workload | figure | peer | ratio (range) | target | |",
        "|---|---|---|---|---|---|",
        "| json-mlp-c8 | requests/s | kserve | 10 (9.5–12.2) | ≥8 | met |",
        "| json-mlp-c8 | requests/s | triton | 10 (9.5–12.2) | ≥11 | **missed** |",
        "",
        "![ratios](serving.svg)",
        "",
        "## REST JSON, 8 connections (`json-mlp-c8`)",
        "",
        "| | requests/s, ours/peer | CPU µs a request, peer/ours | rounds |",
        "|---|---|---|---|",
        "| **penstock** | 12,346 | 81 | |",
        "| kserve | 1,234 · 10 (9.5–12.2) | 810 · 10 (9–11) | 5 |",
        "| triton | 1,234 · 10 (9.5–12.2) | 810 · 10 (9–11) | 5, 2 disturbed |",
        "| ray | 1,234 · 10 (9.5–12.2) | 810 · 10 (9–11) | 5 |",
    ]


def test_figures_of_an_earlier_run_name_their_commit() -> None:
    results = {**RESULTS, "rows": [row("kserve", None, None, commit="0ld")]}

    assert "Measured at commit 0ld." in rendering.markdown(results).splitlines()


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "serving.json").write_text(json.dumps(RESULTS))
    written = []
    for _ in range(2):
        rendering.render(tmp_path)
        written.append({path.name: path.read_bytes() for path in tmp_path.glob("serving.*")})
    assert written[0] == written[1]
    assert sorted(written[0]) == ["serving.json", "serving.md", "serving.svg"]
