"""The catalogue of a bundle: id, title, category and popularity of each item."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import BundleError

_COLUMNS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("category", pa.list_(pa.string()), nullable=False),
        pa.field("popularity", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items of a bundle in order: position k of the tuples is item index k + 1, index 0 is padding.

    Attributes:
        item_ids: distinct, non-empty item ids.
        titles: title of each item.
        categories: category of each item; the first one of an item of several.
        popularity: float32 [n_items + 1], percentiles from 0 to 100; 0 for padding.
        more_categories: for the item index of each item of several categories, those after the first.

    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[str, ...]
    popularity: npt.NDArray[np.float32]
    more_categories: Mapping[int, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """The name of each category code, in alphabetical order; code 0 (padding) has the empty name."""
        return ("", *sorted(set(self.categories).union(*self.more_categories.values())))

    @cached_property
    def category_codes(self) -> npt.NDArray[np.int32]:
        """int32 [n_items + 1]: the first category of each item index, as a position in category_names."""
        code = {name: number for number, name in enumerate(self.category_names)}
        codes = np.array([0, *(code[name] for name in self.categories)], dtype=np.int32)
        codes.setflags(write=False)
        return codes

    @cached_property
    def title_codes(self) -> npt.NDArray[np.int64]:
        """int64 [n_items + 1]: a number for each title, the same for items of the same title; 0 for padding."""
        code = {title: number for number, title in enumerate(dict.fromkeys(self.titles), start=1)}
        codes = np.array([0, *(code[title] for title in self.titles)], dtype=np.int64)
        codes.setflags(write=False)
        return codes

    @cached_property
    def category_offsets(self) -> npt.NDArray[np.int64]:
        """int64 [n_items + 2]: where the categories of each item index begin in category_members."""
        counts = [1 + len(self.more_categories.get(index, ())) for index in range(len(self) + 1)]
        return np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def category_members(self) -> npt.NDArray[np.int32]:
        """int32: the categories of all item indices, as positions in category_names, the first one of each first."""
        members = self.category_codes.repeat(np.diff(self.category_offsets))
        code = {name: number for number, name in enumerate(self.category_names)}
        for index, names in self.more_categories.items():
            first = self.category_offsets[index] + 1
            members[first : first + len(names)] = [code[name] for name in names]
        return members

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids, start=1)}

    def index(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Look up item ids: int64 [len(item_ids)], 0 for an unknown item."""
        return np.fromiter(map(self._index.get, item_ids, repeat(0)), dtype=np.int64, count=len(item_ids))


def catalog_bytes(catalog: Catalog) -> bytes:
    """Write the catalogue as Parquet; with one version of pyarrow, equal catalogues give equal bytes."""
    categories: Sequence[object] = catalog.categories
    if catalog.more_categories:
        more = catalog.more_categories
        categories = [[name, *more.get(index, ())] for index, name in enumerate(catalog.categories, start=1)]
    table = pa.table(
        [
            pa.array(catalog.item_ids, pa.string()),
            pa.array(catalog.titles, pa.string()),
            pa.array(categories),
            pa.array(catalog.popularity[1:], pa.float32()),
        ],
        names=_COLUMNS.names,
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_catalog(data: bytes) -> Catalog:
    """Read ``catalog.parquet``; raises BundleError if the data are no valid catalogue."""
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise BundleError(
            f"catalog.parquet: expected Parquet, got {error}: write the file with pyarrow or DuckDB."
        ) from error
    missing = [name for name in _COLUMNS.names if name not in table.column_names]
    if missing:
        raise BundleError(
            f"catalog.parquet: expected the columns {', '.join(_COLUMNS.names)}, got {', '.join(table.column_names)}: "
            f"add {', '.join(missing)}."
        )
    try:
        table = _with_lists(table.select(_COLUMNS.names)).cast(
            pa.schema([field.with_nullable(True) for field in _COLUMNS])
        )
    except (pa.ArrowException, ValueError) as error:
        raise BundleError(
            f"catalog.parquet: expected text columns, a float32 popularity and a category that is a text or "
            f"a list of texts, got {error}: convert the columns."
        ) from error
    categories = table.column("category").to_pylist()
    empty = [name for name in _COLUMNS.names if table.column(name).null_count]
    if "category" not in empty and not all(names and all(names) for names in categories):
        empty.append("category")
    if empty:
        raise BundleError(
            f"catalog.parquet: expected a value in every row, got none in {', '.join(empty)}: fill in the values, "
            "or remove the items from the catalogue and the item vectors."
        )
    popularity = np.zeros(table.num_rows + 1, dtype=np.float32)
    popularity[1:] = table.column("popularity").to_numpy()
    if not ((popularity >= 0) & (popularity <= 100)).all():
        raise BundleError(
            f"catalog.parquet: expected popularity percentiles from 0 to 100, got {popularity.min()} to "
            f"{popularity.max()}: store 100 times the rank divided by the number of items."
        )
    popularity.setflags(write=False)
    item_ids = tuple(table.column("item_id").to_pylist())
    if len(set(item_ids)) != len(item_ids) or "" in item_ids:
        raise BundleError(
            f"catalog.parquet: expected distinct, non-empty item_ids, got {len(set(item_ids) - {''})} in "
            f"{len(item_ids)} rows: keep one row per item."
        )
    more = {index: tuple(names[1:]) for index, names in enumerate(categories, start=1) if len(names) > 1}
    return Catalog(
        item_ids, tuple(table.column("title").to_pylist()), tuple(names[0] for names in categories), popularity, more
    )


def _with_lists(table: pa.Table) -> pa.Table:
    """Read a category that is a text as a list of one."""
    place, column = table.schema.get_field_index("category"), table.column("category").combine_chunks()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return table
    offsets = pa.array(np.arange(len(column) + 1, dtype=np.int32))
    return table.set_column(place, "category", pa.ListArray.from_arrays(offsets, column.cast(pa.string())))
