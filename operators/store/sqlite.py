"""Objects of local mode in one SQLite file, with the bookkeeping the Kubernetes API would do for them.

Each object is a row. ``generation`` grows when the spec changes, ``resourceVersion`` with every write, from
one counter for all objects, so that a later write always has a greater one. Writes are small and rare, so
they run in line: one ``fsync`` each, in write-ahead mode.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import datetime
import enum
import json
import pathlib
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator
from typing import Any

from operators.api.base import API_VERSION, APIObject
from operators.api.errors import Conflict, InvalidObject, NotFound, Unreachable
from operators.api.kinds import KINDS, parse
from operators.api.plan import Key
from operators.api.status import EndpointStatus, ModelStatus

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    uid TEXT NOT NULL, created TEXT NOT NULL, generation INTEGER NOT NULL, version INTEGER NOT NULL,
    labels TEXT NOT NULL, annotations TEXT NOT NULL, spec TEXT NOT NULL, status TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (value INTEGER NOT NULL);
INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter);
"""


class Outcome(enum.StrEnum):
    """What an apply did."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True)
class SqliteStore:
    """A ``Store`` for one process, which also takes what people apply and delete.

    ``changed`` is called with the key of every object that was written or deleted.
    """

    path: pathlib.Path
    clock: Callable[[], datetime.datetime]
    changed: Callable[[Key], None]
    database: sqlite3.Connection

    @classmethod
    def open(
        cls, path: pathlib.Path, clock: Callable[[], datetime.datetime], changed: Callable[[Key], None]
    ) -> SqliteStore:
        """The store in the file ``path``, made if there is none.

        Raises:
            Unreachable: the file cannot be opened, is damaged, or the disk is full.
        """
        with _named(path):
            database = sqlite3.connect(path, isolation_level=None)
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA busy_timeout = 2000")
            database.executescript(_SCHEMA)
        return cls(path, clock, changed, database)

    def close(self) -> None:
        self.database.close()

    async def get(self, key: Key) -> APIObject | None:
        row = self._row(key)
        return None if row is None else parse(_object(row))

    async def list(self, kind: str, namespace: str | None = None) -> builtins.list[APIObject]:
        with _named(self.path):
            rows = self.database.execute(
                "SELECT * FROM objects WHERE kind = ? AND ? IN (namespace, '*') ORDER BY namespace, name",
                (kind, namespace if namespace is not None and KINDS[kind].namespaced else "*"),
            ).fetchall()
        objects = []
        for row in rows:
            with contextlib.suppress(InvalidObject):
                objects.append(parse(_object(row)))
        return objects

    def keys(self) -> builtins.list[Key]:
        """Every object there is, also those that do not parse."""
        with _named(self.path):
            rows = self.database.execute("SELECT kind, namespace, name FROM objects ORDER BY 1, 2, 3").fetchall()
        return [Key(*row) for row in rows]

    async def update_status(self, key: Key, status: ModelStatus | EndpointStatus) -> None:
        row, written = self._row(key), _json(status.to_dict())
        if row is not None and written != row["status"]:
            self._write(key, {"status": written})

    async def apply(self, wanted: APIObject, keep: Collection[str] = ()) -> tuple[Outcome, APIObject]:
        """Create ``wanted``, or replace the spec, labels and annotations of the one there is; what it is now.

        Annotations that ``keep`` names stay where ``wanted`` does not mention them.

        Raises:
            Conflict: ``wanted`` carries a resourceVersion, and the object has another one by now.
            Unreachable: the file cannot be written.
        """
        meta = wanted.metadata
        key = Key(wanted.kind, meta.namespace if type(wanted).namespaced else "", meta.name)
        row = self._row(key)
        given, stored = meta.resource_version, "" if row is None else str(row["version"])
        if given and given != stored:
            raise Conflict(
                f"{key} has resourceVersion {stored or 'none: it does not exist'}, not {given}: "
                "read it again, or leave metadata.resourceVersion out"
            )
        kept = {} if row is None else {k: v for k, v in json.loads(row["annotations"]).items() if k in keep}
        columns = {
            "labels": _json(meta.labels),
            "annotations": _json(kept | meta.annotations),
            "spec": _json(wanted.to_dict()["spec"]),
        }
        if row is None:
            created = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
            new = {"uid": str(uuid.uuid4()), "created": created, "generation": 1, "status": "{}"}
            self._insert(key, columns | new)
            outcome = Outcome.CREATED
        elif all(row[column] == value for column, value in columns.items()):
            outcome = Outcome.UNCHANGED
        else:
            self._write(key, columns | {"generation": row["generation"] + (row["spec"] != columns["spec"])})
            outcome = Outcome.CONFIGURED
        now = await self.get(key)
        assert now is not None
        return outcome, now

    async def delete(self, key: Key) -> None:
        """Remove the object; what exists for it is removed when its key is next reconciled.

        Raises:
            NotFound: there is no such object.
            Unreachable: the file cannot be written.
        """
        key = _normal(key)
        with _named(self.path):
            found = self.database.execute(
                "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", dataclasses.astuple(key)
            )
        if found.rowcount == 0:
            raise NotFound(f"{key} does not exist; `penstock get {KINDS[key.kind].plural}` lists those that do")
        self.changed(key)

    def _row(self, key: Key) -> sqlite3.Row | None:
        with _named(self.path):
            row: sqlite3.Row | None = self.database.execute(
                "SELECT * FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
                dataclasses.astuple(_normal(key)),
            ).fetchone()
        return row

    def _insert(self, key: Key, columns: dict[str, Any]) -> None:
        columns = dataclasses.asdict(key) | columns
        places = ", ".join("?" for _ in columns)
        with _named(self.path), self._transaction() as version:
            self.database.execute(
                f"INSERT INTO objects ({', '.join(columns)}, version) VALUES ({places}, ?)",
                (*columns.values(), version),
            )
        self.changed(key)

    def _write(self, key: Key, columns: dict[str, Any]) -> None:
        key = _normal(key)
        changes = ", ".join(f"{column} = ?" for column in columns)
        with _named(self.path), self._transaction() as version:
            self.database.execute(
                f"UPDATE objects SET {changes}, version = ? WHERE kind = ? AND namespace = ? AND name = ?",
                (*columns.values(), version, *dataclasses.astuple(key)),
            )
        self.changed(key)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[int]:
        with self.database:
            self.database.execute("BEGIN IMMEDIATE")
            (version,) = self.database.execute("UPDATE counter SET value = value + 1 RETURNING value").fetchone()
            yield version


def _normal(key: Key) -> Key:
    return key if KINDS[key.kind].namespaced else dataclasses.replace(key, namespace="")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _object(row: sqlite3.Row) -> dict[str, Any]:
    namespace = {"namespace": row["namespace"]} if row["namespace"] else {}
    written = {
        "apiVersion": API_VERSION,
        "kind": row["kind"],
        "metadata": {
            "name": row["name"],
            **namespace,
            "uid": row["uid"],
            "generation": row["generation"],
            "resourceVersion": str(row["version"]),
            "creationTimestamp": row["created"],
            "labels": json.loads(row["labels"]),
            "annotations": json.loads(row["annotations"]),
        },
        "spec": json.loads(row["spec"]),
    }
    status = json.loads(row["status"])
    return written | ({"status": status} if status else {})


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Say which file it is, what is wrong with it and what helps."""
    try:
        yield
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorname", ""):
            case "SQLITE_FULL":
                problem = "the disk is full; free some space"
            case "SQLITE_CORRUPT" | "SQLITE_NOTADB":
                problem = "it is damaged; move it away and apply your objects again"
            case _:
                problem = f"{error}; check that it can be written and that no other process uses it"
        raise Unreachable(f"{path}: {problem}") from error
