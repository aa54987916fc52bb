"""README shows what is kept, and of every check."""

from __future__ import annotations

from serving.conformance import checks
from tests.engines import started, table


def test_readme_shows_what_is_kept_of_every_engine_and_check() -> None:
    known = table.known()
    names = [one.name for one in checks.all_checks()]
    assert {engine: list(found) for engine, found in known.items()} == dict.fromkeys(started.ENGINES, names)
    assert table.BEGIN + table.table(known) + table.END in table.README.read_text()
