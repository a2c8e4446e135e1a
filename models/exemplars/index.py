"""The prototypes of a bundle and their nearest-neighbour search.

A bundle may have two more files, verified by hash like all others: ``exemplars.parquet`` with what is shown of each
prototype, and ``exemplars.usearch`` with the search index (HNSW, cosine, float16). Without these files no moments of
other users are shown.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from usearch.index import Index

from models.bundle import Bundle, attach
from models.errors import BundleError
from models.exemplars.prototypes import K_ANONYMOUS, Prototypes, unit

TABLE: Final = "exemplars.parquet"
INDEX: Final = "exemplars.usearch"

_SCHEMA: Final = pa.schema(
    [
        pa.field("next_item", pa.int32(), nullable=False),
        pa.field("users", pa.int32(), nullable=False),
        pa.field("watched", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Exemplars:
    """Prototypes with a search index; arrays as in :class:`Prototypes`."""

    index: Any
    next_item: NDArray[np.int64]
    users: NDArray[np.int64]
    watched: NDArray[np.int64]

    @classmethod
    def load(cls, bundle: Bundle) -> Self | None:
        """Open the bundle's prototypes; None if the bundle has no prototypes.

        Raises:
            BundleError: a file cannot be read or does not fit the bundle, or fewer than ``K_ANONYMOUS`` users share a
                prototype.

        """
        if not {TABLE, INDEX} <= set(bundle.manifest.files):
            return None
        try:
            table = pq.read_table(bundle.path / TABLE).cast(_SCHEMA)
            index = Index.restore((bundle.path / INDEX).read_bytes())
            columns = [table[name].to_numpy().astype(np.int64) for name in _SCHEMA.names]
            fits = index is not None and len(index) == len(table) and index.ndim == bundle.item_vectors.shape[1]
        except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
            raise BundleError(f"{TABLE}, {INDEX}: {error}: {_REMEDY}") from error
        next_item, users, watched = columns
        if not fits or (len(table) and not 1 <= next_item.min() <= next_item.max() <= len(bundle.catalog)):
            raise BundleError(f"{TABLE}, {INDEX}: expected prototypes of this bundle, got others: {_REMEDY}")
        if len(table) and min(users.min(), watched.min()) < K_ANONYMOUS:
            raise BundleError(
                f"{TABLE}: expected at least {K_ANONYMOUS} users for each prototype, got fewer: {_REMEDY}"
            )
        return cls(index, next_item, users, watched)

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[list[tuple[int, float]]]:
        """Find up to count prototypes for each session vector float32 [n, d]: rows and cosines, nearest first."""
        if not len(self.next_item) or not len(vector):
            return [[] for _ in vector]
        found = self.index.search(unit(vector), min(count, len(self.next_item)), threads=1)
        keys, distances = (np.atleast_2d(each) for each in (found.keys, found.distances))
        return [
            [(int(key), 1.0 - float(distance)) for key, distance in zip(*row, strict=True)]
            for row in zip(keys, distances, strict=True)
        ]


_REMEDY: Final = "write the files again with whyrec models exemplars"


def write(directory: Path, found: Prototypes) -> Bundle:
    """Write prototypes into a bundle, replacing those it has, and load the bundle again."""
    bundle = Bundle.load(directory)
    index = Index(ndim=bundle.item_vectors.shape[1], metric="cos", dtype="f16")
    if len(found):
        index.add(np.arange(len(found)), found.vector, threads=1)
    table = io.BytesIO()
    columns = [found.next_item, found.users, found.watched]
    pq.write_table(pa.table([pa.array(each, pa.int32()) for each in columns], schema=_SCHEMA), table)
    content = {TABLE: table.getvalue(), INDEX: bytes(index.save() or b"")}
    return attach(directory, content)
