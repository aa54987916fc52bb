"""A Parquet or Arrow file: a column a tensor, a row a sample.

Names are as in an ``.npz``: ``x`` or the inputs' own, ``y`` for labels, any other column of numbers or texts to slice
by. A sample of several numbers is a list of them, nested or flat, row-major; numbers of the same kind are converted.
Lists of labels may differ in length and are padded with zeros (boxes of each picture); those of inputs may not. Texts
are cut after 256 characters; columns of other types are left out.

Parquet is read page by page. An Arrow file is mapped, and where it is packed, unpacked a record batch at a time. Rows
that are too large by the file's own account are refused before they are read; a file that lies about it costs no more
than the memory that its stage may have.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from serving.errors import ArtifactRefused
from serving.tensors import DTYPES, Array, Signature, TensorSpec
from serving.variants.datasets import base
from serving.variants.datasets.base import Batch

_LONGEST_TEXT = 256
_BUFFER_BYTES = 2**20
_COUNTED_ROWS = 4096


class Columns:
    """One file, as a dataset for models with one signature."""

    def __init__(self, path: Path, signature: Signature) -> None:
        self._path = path
        with path.open("rb") as file:
            self._is_parquet = file.read(4) == b"PAR1"
        with self._refusing():
            names = [field.name for field in self._schema() if _is_read(field.type)]
            self._inputs = base.inputs(path, names, signature)
            self.facts = tuple(name for name in names if name not in self._inputs)
            """Names of the columns that are no inputs."""
            self._row_bytes = self._checked() if self._is_parquet else 1
            counted = parquet.read_metadata(path).num_rows if self._is_parquet else None
            self.samples: int = counted if counted is not None else sum(map(len, self._tables(_COUNTED_ROWS)))
            """How many rows there are."""
        if not self.samples:
            raise ArtifactRefused(f"{path} has no samples; give some")

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order, at most ``size`` at a time; fewer where they are large."""
        row = self._row_bytes + sum(
            math.prod(max(one, 1) for one in spec.shape[1:]) * DTYPES[spec.datatype].itemsize
            for spec in self._inputs.values()
        )
        size = max(1, min(size, base.MAX_BATCH_BYTES // row))
        first = 0
        with self._refusing():
            for table in self._tables(size):
                read = {
                    spec.name: self._input(name, spec, table.column(name), first) for name, spec in self._inputs.items()
                }
                base.check_finite(self._path, read, first)
                facts = {name: self._array(name, table.column(name), first, padded=True) for name in self.facts}
                yield Batch(read, facts, first)
                first += len(table)
        if first != self.samples:
            raise ArtifactRefused(f"{self._path} ends early: {first} of {self.samples} rows; write the file again")

    def _schema(self) -> pa.Schema:
        if self._is_parquet:
            return parquet.read_schema(self._path)
        with _arrow(self._path) as reader:
            return reader.schema

    def _checked(self) -> int:
        """Bytes of a row by the file's account; ArtifactRefused where they are too many, or not the input's numbers."""
        about = parquet.read_metadata(self._path)
        most = 1
        for group in map(about.row_group, range(about.num_row_groups)):
            total = 0
            for column in map(group.column, range(group.num_columns)):
                name = column.path_in_schema.split(".")[0]
                spec = self._inputs.get(name)
                if spec is None and name not in self.facts:
                    continue
                each = column.num_values / max(group.num_rows, 1)
                if spec is not None and -1 not in spec.shape[1:] and each > math.prod(spec.shape[1:]):
                    raise ArtifactRefused(
                        f"{self._path}: a row of column {name} has {each:g} numbers, and input {spec.name} of the "
                        f"model takes {list(spec.shape[1:])}; give samples as the model takes them"
                    )
                total += math.ceil(max(8 * each, column.total_uncompressed_size / max(group.num_rows, 1)))
            most = max(most, total)
        if most > base.MAX_BATCH_BYTES:
            raise ArtifactRefused(f"{self._path}: one row has {most >> 20} MiB; 256 are taken at most")
        return most

    def _tables(self, size: int) -> Iterator[pa.RecordBatch]:
        """At most ``size`` rows at a time, whole and sound."""
        names = [*self._inputs, *self.facts]
        if self._is_parquet:
            with parquet.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                yield from file.iter_batches(size, columns=names, use_threads=False)
            return
        with _arrow(self._path) as reader:
            whole = map(reader.get_batch, range(reader.num_record_batches)) if hasattr(reader, "get_batch") else reader
            for table in whole:
                table.validate(full=True)  # offsets of a hostile file may point anywhere
                for first in range(0, len(table), size):
                    yield table.slice(first, size).select(names)

    def _input(self, name: str, spec: TensorSpec, column: pa.Array, first: int) -> Array:
        array = self._array(name, column, first, padded=False)
        shape, wanted = spec.shape[1:], DTYPES[spec.datatype]
        if -1 not in shape and array.size == len(array) * math.prod(shape):
            array = array.reshape(len(array), *shape)
        if np.can_cast(array.dtype, wanted, "same_kind"):
            array = array.astype(wanted)
        base.fit(self._path, name, array.shape, array.dtype, spec)
        return array

    def _array(self, name: str, values: pa.Array, first: int, *, padded: bool) -> Array:
        """Values as [rows, …]; lists within them padded with zeros, or refused where their lengths differ."""
        if isinstance(values.type, pa.FixedShapeTensorType):
            shape = values.type.shape
            return self._array(name, values.storage, first, padded=padded).reshape(len(values), *shape)
        if values.null_count:
            row = first + pc.index(values.is_null(), True).as_py()
            raise ArtifactRefused(f"{self._path}: column {name} has no value in or after row {row}; remove the row")
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if not _is_list(values.type):
            if _is_text(values.type):
                return np.array(pc.utf8_slice_codeunits(values, 0, _LONGEST_TEXT).to_pylist(), np.str_)
            array: Array = values.to_numpy(zero_copy_only=False)
            return array
        inner = self._array(name, values.flatten(), first, padded=padded)
        lengths = np.asarray(pc.list_value_length(values), np.int64)
        if not padded and np.ptp(lengths) > 0:
            raise ArtifactRefused(
                f"{self._path}: column {name} has lists of {lengths.min()} to {lengths.max()} numbers from row {first} "
                "on; give every sample the same number"
            )
        longest = int(lengths.max(initial=0))
        if len(lengths) * longest * inner[:1].nbytes > base.MAX_BATCH_BYTES:
            raise ArtifactRefused(
                f"{self._path}: column {name} has {longest} values in one row after {first}; give fewer"
            )
        array = np.zeros((len(lengths), longest, *inner.shape[1:]), inner.dtype)
        array[np.arange(longest) < lengths[:, None]] = inner
        return array

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """What the libraries find wrong with the file, as our refusal."""
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowIndexError, OSError) as error:
            kind = "Parquet" if self._is_parquet else "Arrow"
            raise ArtifactRefused(
                f"{self._path} cannot be read as {kind}: {str(error)[:300]}; write it again"
            ) from error


@contextlib.contextmanager
def _arrow(path: Path) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    """A reader of either form of an Arrow file."""
    with path.open("rb") as file:
        is_file = file.read(6) == b"ARROW1"
    with pa.memory_map(str(path)) as mapped, (pa.ipc.open_file if is_file else pa.ipc.open_stream)(mapped) as reader:
        yield reader


def _is_read(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    if _is_list(kind):
        return not _is_text(kind.value_type) and _is_read(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _is_read(kind.value_type)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or _is_text(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
