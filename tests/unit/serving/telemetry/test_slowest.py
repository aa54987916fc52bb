from serving.telemetry.metrics import ModelCounters
from serving.telemetry.records import Record
from serving.telemetry.slowest import KEEP, SLOW_S, WINDOW_S, Slowest


def record(total_s: float, model: str = "m", version: str = "1") -> Record:
    return Record(0, "v2", model, version, "", 200, "", "", 1, 1, None, None, None, None, None, total_s, "")


def told(table: Slowest) -> list[list[int]]:
    return [[round(record.total_s * 1000) for record in records] for records in table.records()]


def fill(table: Slowest, counters: ModelCounters, times: range) -> None:
    """Offers what took so many milliseconds, unless it need not be."""
    for total_ms in times:
        if total_ms / 1000 > counters.notable_s:
            table.add(counters, record(total_ms / 1000))


def test_the_slowest_are_kept_and_the_rest_are_not_even_asked_for() -> None:
    table, counters = Slowest(0), ModelCounters()

    fill(table, counters, range(1, 100))

    assert told(table) == [[*range(99, 99 - KEEP, -1)]]
    assert counters.notable_s == (100 - KEEP) / 1000


def test_a_window_that_is_over_is_shown_until_the_next_one_is() -> None:
    table, counters = Slowest(0), ModelCounters()
    fill(table, counters, range(1, 100))

    table.turn(WINDOW_S)
    assert counters.notable_s == 0
    fill(table, counters, range(1, 3))
    assert told(table) == [[*range(99, 99 - KEEP, -1)]]

    table.turn(2 * WINDOW_S)
    assert told(table) == [[2, 1]]
    table.turn(3 * WINDOW_S)
    assert told(table) == []


def test_what_is_older_than_two_windows_is_not_shown_when_nobody_looked_at_the_clock() -> None:
    table, counters = Slowest(0), ModelCounters()
    fill(table, counters, range(1, 3))

    table.turn(5 * WINDOW_S)

    assert told(table) == []


def test_each_model_version_has_a_table_of_its_own_ordered_by_name() -> None:
    table = Slowest(0)
    for model, version in (("b", "1"), ("a", "2"), ("a", "1")):
        table.add(ModelCounters(), record(1, model, version))

    assert [(records[0].model, records[0].version) for records in table.records()] == [
        ("a", "1"),
        ("a", "2"),
        ("b", "1"),
    ]


def test_a_request_of_a_second_is_notable_even_where_all_take_longer() -> None:
    table, counters = Slowest(0), ModelCounters()
    fill(table, counters, range(2000, 2000 + KEEP))

    assert counters.notable_s == SLOW_S
    fill(table, counters, range(1500, 1501))
    assert told(table) == [[*range(1999 + KEEP, 1999, -1)]]
