from benchmarks.interleaving import rotated


def test_each_round_begins_with_another_and_has_all() -> None:
    names = ["a", "b", "c"]
    assert [rotated(names, number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
