"""Reading an owner's list of items: CSV, Parquet or JSON lines, to the catalogue of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from models.catalog import Catalog
from models.errors import BundleError

SEPARATOR: Final = "|"
"""Stands between the categories of one item where they are one text."""

_REQUIRED: Final = ("item_id", "title", "category")


def read_items(path: Path) -> Catalog:
    """Read a catalogue from a ``.csv``, ``.parquet`` or ``.jsonl`` file.

    Columns: item_id; title; category, a text of one or several categories separated by ``|``, or a list of texts;
    optionally popularity, any number that is larger for a more popular item, such as a count, of which the percentile
    is kept; optionally item_index, the item's index in the session model, from 1. Without item_index the nth row is
    item index n.

    Raises:
        BundleError: the file cannot be read, or a column is missing or does not hold what it should.

    """
    table = _read_table(path)
    if missing := [name for name in _REQUIRED if name not in table.column_names]:
        raise BundleError(
            f"{path}: expected the columns {', '.join(_REQUIRED)}, got {', '.join(table.column_names)}: add or rename "
            f"{', '.join(missing)}."
        )
    table = _in_order(table, path)
    item_ids, titles = (_texts(table, name, path) for name in _REQUIRED[:2])
    if len(set(item_ids)) < len(item_ids):
        repeated = next(each for each in item_ids if item_ids.count(each) > 1)
        raise BundleError(f"{path}: expected each item_id once, got {repeated} twice: keep one row per item.")
    categories = _categories(table, path)
    more = {index: names[1:] for index, names in enumerate(categories, start=1) if len(names) > 1}
    return Catalog(item_ids, titles, tuple(names[0] for names in categories), _popularity(table, path), more)


def _read_table(path: Path) -> pa.Table:
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise BundleError(f"{path}: expected a file that ends in {', '.join(_READERS)}: convert or rename it.")
    try:
        return read(path)
    except (pa.ArrowException, OSError) as error:
        raise BundleError(f"{path}: expected a readable {path.suffix} file, got {error}: correct it.") from error


def _read_csv(path: Path) -> pa.Table:
    texts = dict.fromkeys(_REQUIRED, pa.string())
    return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=texts))


_READERS: Final[Mapping[str, Callable[[Path], pa.Table]]] = {
    ".csv": _read_csv,
    ".parquet": pq.read_table,
    ".jsonl": pyarrow.json.read_json,
}


def _in_order(table: pa.Table, path: Path) -> pa.Table:
    """Sort the rows by item_index, where the table has it."""
    if "item_index" not in table.column_names:
        return table
    index = _numbers(table, "item_index", path)
    order = np.argsort(index, kind="stable")
    if not np.array_equal(index[order], np.arange(1, len(index) + 1)):
        raise BundleError(
            f"{path}: expected item_index to number the {len(index)} items from 1 to {len(index)}, got numbers from "
            f"{index.min():g} to {index.max():g}: give every item of the session model one row; index 0 is padding."
        )
    return table.take(pa.array(order))


def _texts(table: pa.Table, name: str, path: Path) -> tuple[str, ...]:
    try:
        values = table.column(name).cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise BundleError(f"{path}: expected {name} to be a text, got {error}: convert the column.") from error
    if empty := [row for row, value in enumerate(values, start=1) if not value]:
        raise BundleError(f"{path}: expected a {name} in every row, got none in row {empty[0]}: fill it in.")
    return tuple(values)


def _categories(table: pa.Table, path: Path) -> list[tuple[str, ...]]:
    column: Any = table.column("category")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        found = [tuple(str(name) for name in names or () if name) for names in column.to_pylist()]
    else:
        found = [tuple(filter(None, map(str.strip, text.split(SEPARATOR)))) for text in _texts(table, "category", path)]
    if empty := [row for row, names in enumerate(found, start=1) if not names]:
        raise BundleError(f"{path}: expected a category in every row, got none in row {empty[0]}: fill it in.")
    return found


def _popularity(table: pa.Table, path: Path) -> npt.NDArray[np.float32]:
    """Return percentiles, float32 [n + 1]: the share of items that are less popular, the item itself included."""
    percentiles = np.zeros(table.num_rows + 1, dtype=np.float32)
    if "popularity" in table.column_names:
        values = _numbers(table, "popularity", path)
        less = np.searchsorted(np.sort(values), values, side="left")
        percentiles[1:] = 100.0 * (less + 1) / len(values)
    return percentiles


def _numbers(table: pa.Table, name: str, path: Path) -> npt.NDArray[np.float64]:
    column: Any = table.column(name)
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowException as error:
        raise BundleError(f"{path}: expected {name} to be a number, got {error}: convert the column.") from error
    values: npt.NDArray[np.float64] = pc.fill_null(numbers, float("nan")).to_numpy()
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise BundleError(f"{path}: expected a {name} in every row, got none in row {row}: fill it in.")
    return values
