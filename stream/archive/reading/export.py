"""Export of rows as CSV, Parquet or JSON lines, written table by table, with a hash of the file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import uuid
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from stream.archive.rows.slates import SCHEMA

Format = Literal["csv", "parquet", "jsonl"]


class Writer(Protocol):
    """Writes tables of the schema of the archive to a file, one after another."""

    def write(self, table: pa.Table) -> None:
        """Write rows."""
        ...

    def close(self) -> None:
        """Finish the file. The underlying file stays open."""
        ...


class Hashed(io.RawIOBase):
    """A file that passes bytes on and computes their SHA-256 and number."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes to the underlying file."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes written so far, hexadecimal."""
        return self._hash.hexdigest()


class Output:
    """A file in one of the formats; ``sha256`` and ``size`` are final once it is left."""

    def __init__(self, file: BinaryIO, form: Format) -> None:
        self._hashed = Hashed(file)
        self._writer = _writer(self._hashed, form)
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows (of :data:`stream.archive.rows.slates.SCHEMA`)."""
        self._writer.write(table)
        self.rows += table.num_rows

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes of the file, hexadecimal."""
        return self._hashed.sha256

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._hashed.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()


class _Csv:
    """CSV: bytes as hexadecimal digits, lists as JSON, and a header even if there is no row."""

    def __init__(self, file: Hashed) -> None:
        self._file = file
        self._write_lines([SCHEMA.names])

    def write(self, table: pa.Table) -> None:
        self._write_lines([_cell(value) for value in row.values()] for row in map(_plain, table.to_pylist()))

    def close(self) -> None:
        """Do nothing: every row is written already."""

    def _write_lines(self, lines: Any) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._file.write(text.getvalue().encode())


class _JsonLines:
    """JSON lines: one object a line, bytes as hexadecimal digits."""

    def __init__(self, file: Hashed) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        lines = "".join(f"{json.dumps(_plain(row), ensure_ascii=False)}\n" for row in table.to_pylist())
        self._file.write(lines.encode())

    def close(self) -> None:
        """Do nothing: every row is written already."""


class _Parquet:
    """Parquet, with the columns of the archive."""

    def __init__(self, file: Hashed) -> None:
        self._writer = pq.ParquetWriter(pa.PythonFile(file, mode="w"), SCHEMA, compression="zstd", store_schema=False)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


def _writer(file: Hashed, form: Format) -> Writer:
    match form:
        case "csv":
            return _Csv(file)
        case "jsonl":
            return _JsonLines(file)
        case "parquet":
            return _Parquet(file)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, uuid.UUID) else value


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
