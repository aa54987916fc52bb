from benchmarks import comparison


def results(commit: str, *workloads: str, failures: dict[str, str] | None = None) -> dict[str, object]:
    return {
        "question": "How fast?",
        "origin": {"commit": commit},
        "failures": failures or {},
        "workloads": {name: f"about {name}" for name in workloads},
        "compute_us": {commit: 1.0},
        "rows": [{"workload": name, "commit": commit} for name in workloads],
        "versions": {commit: ["package==1"]},
    }


def test_a_run_of_some_workloads_replaces_those_and_leaves_the_others_in_their_order() -> None:
    before = results(
        "old", "json-mlp-c8", "grpc-mlp-c8", "start", failures={"json-mlp-c1": "old", "binary-602k": "old"}
    )
    now = results("new", "grpc-mlp-c8", "json-mlp-c1", failures={"start": "kserve did not"})

    found = comparison.joined(before, now, {"grpc-mlp-c8", "json-mlp-c1", "start"})

    assert [(row["workload"], row["commit"]) for row in found["rows"]] == [
        ("json-mlp-c1", "new"),
        ("json-mlp-c8", "old"),
        ("grpc-mlp-c8", "new"),
    ]
    assert list(found["workloads"]) == ["json-mlp-c1", "json-mlp-c8", "grpc-mlp-c8"]
    assert found["failures"] == {"binary-602k": "old", "start": "kserve did not"}
    assert (found["origin"], found["compute_us"]) == ({"commit": "new"}, {"old": 1.0, "new": 1.0})
    assert found["versions"] == {"old": ["package==1"], "new": ["package==1"]}


def test_the_first_run_stands_alone() -> None:
    now = results("new", "start")

    assert comparison.joined({}, now, {"start"}) == now
