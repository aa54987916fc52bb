"""What searches began with and what they found, gone through again."""

import pytest

from tests.fuzz import corpus
from tests.fuzz.connection import Connection
from tests.fuzz.parsers import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_or_refuses_whatever_the_corpus_holds(name: str) -> None:
    for data in corpus.seeds(name):
        TARGETS[name](data)


def test_a_connection_keeps_its_promises_whatever_the_corpus_holds() -> None:
    connection = Connection()

    for data in corpus.seeds("connection"):
        for size in (0, 1, 7):
            for how in range(8):
                connection(bytes((size, how)) + data[2:])
