import json
from pathlib import Path

import pytest

from serving.errors import NotReady, UnknownModel, Unsupported
from serving.models.base import Entry, State
from serving.models.catalog import Catalog

UNKNOWN = "Request for unknown model: 'nope' is not served here; GET /v2/models lists what is served: broken, digits"

LISTED = [
    {"name": "digits", "version": "1", "state": "READY", "reason": ""},
    {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "its artifact was refused"},
]


def rewrite(file: Path, document: object) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.rename(file)


def test_the_index_is_what_the_file_says_now(tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    catalog = Catalog(file)
    assert catalog.index() == ()

    rewrite(file, LISTED)
    catalog.tick(0)
    assert catalog.index() == (
        Entry("broken", "1", State.UNAVAILABLE, "its artifact was refused"),
        Entry("digits", "1", State.READY),
    )

    rewrite(file, LISTED[:1])
    catalog.tick(0)
    assert catalog.index() == (Entry("digits", "1", State.READY),)


@pytest.mark.parametrize("document", [{}, [3], [{"name": "digits", "state": "FINE"}], [{"version": "1"}]])
def test_a_file_that_is_no_index_leaves_what_was_read_last(tmp_path: Path, document: object) -> None:
    file = tmp_path / "index.json"
    rewrite(file, LISTED[:1])
    catalog = Catalog(file)
    catalog.tick(0)

    rewrite(file, document)
    catalog.tick(0)

    assert catalog.index() == (Entry("digits", "1", State.READY),)


def test_a_request_is_told_whether_the_model_is_unknown_or_not_ready_and_why(tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    rewrite(file, LISTED)
    catalog = Catalog(file)
    catalog.tick(0)

    messages = {
        ("nope", ""): (
            UnknownModel,
            UNKNOWN,
        ),
        ("broken", "2"): (UnknownModel, "Request for unknown model: 'broken' has no version '2'"),
        ("broken", ""): (NotReady, "model 'broken' is not ready: its artifact was refused"),
        ("digits", "1"): (NotReady, "model 'digits' is not ready: no server of it answers now"),
    }
    for (name, version), (kind, message) in messages.items():
        with pytest.raises(kind) as refused:
            catalog.find(name, version)
        assert str(refused.value) == message


async def test_models_are_neither_loaded_nor_unloaded_here(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "index.json")

    with pytest.raises(Unsupported):
        await catalog.load("digits")
    with pytest.raises(Unsupported):
        await catalog.unload("digits")
    assert catalog.is_ready()
