"""The prototypes of a bundle: two optional files, pinned by the manifest like all others, and the search in them.

``exemplars.parquet`` says what is told of each prototype, ``exemplars.usearch`` finds the nearest (HNSW, cosine,
float16). A bundle without them tells of no others.
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
    """Prototypes that can be searched; arrays as in :class:`Prototypes`."""

    index: Any
    next_item: NDArray[np.int64]
    users: NDArray[np.int64]
    watched: NDArray[np.int64]

    @classmethod
    def load(cls, bundle: Bundle) -> Self | None:
        """Open the bundle's prototypes, or None where it has none.

        Raises:
            BundleError: they are none, do not fit the bundle, or one is shared by fewer than ``K_ANONYMOUS`` users.

        """
        if not {TABLE, INDEX} <= set(bundle.manifest.files):
            return None
        try:
            table = pq.read_table(bundle.path / TABLE).cast(_SCHEMA)
            index = Index.restore((bundle.path / INDEX).read_bytes())
            columns = [table[name].to_numpy().astype(np.int64) for name in _SCHEMA.names]
            fits = index is not None and len(index) == len(table) and index.ndim == bundle.item_vectors.shape[1]
        except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
            raise BundleError(f"{TABLE}, {INDEX}: {error}: {_AGAIN}") from error
        next_item, users, watched = columns
        if not fits or (len(table) and not 1 <= next_item.min() <= next_item.max() <= len(bundle.catalog)):
            raise BundleError(f"{TABLE}, {INDEX}: expected prototypes of this bundle, got others: {_AGAIN}")
        if len(table) and min(users.min(), watched.min()) < K_ANONYMOUS:
            raise BundleError(f"{TABLE}: expected {K_ANONYMOUS} users behind each prototype, got fewer: {_AGAIN}")
        return cls(index, next_item, users, watched)

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[list[tuple[int, float]]]:
        """Find the nearest prototypes of each of n session vectors float32 [n, d]: rows and cosines, nearest first."""
        if not len(self.next_item) or not len(vector):
            return [[] for _ in vector]
        found = self.index.search(unit(vector), min(count, len(self.next_item)), threads=1)
        keys, distances = (np.atleast_2d(each) for each in (found.keys, found.distances))
        return [
            [(int(key), 1.0 - float(distance)) for key, distance in zip(*row, strict=True)]
            for row in zip(keys, distances, strict=True)
        ]


_AGAIN: Final = "make them again with whyrec models exemplars"


def write(directory: Path, found: Prototypes) -> Bundle:
    """Put prototypes into a bundle, in place of those it has, and open it again."""
    bundle = Bundle.load(directory)
    index = Index(ndim=bundle.item_vectors.shape[1], metric="cos", dtype="f16")
    if len(found):
        index.add(np.arange(len(found)), found.vector, threads=1)
    table = io.BytesIO()
    columns = [found.next_item, found.users, found.watched]
    pq.write_table(pa.table([pa.array(each, pa.int32()) for each in columns], schema=_SCHEMA), table)
    content = {TABLE: table.getvalue(), INDEX: bytes(index.save() or b"")}
    return attach(directory, content)
