"""How the verifier looks at objects: at their bytes and, in a deep verification, at their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive.log.commitlog import InvalidEntry, ObjectRef
from stream.archive.log.intervals import Intervals
from stream.archive.log.names import object_name
from stream.archive.log.sources import Source
from stream.archive.objects import ObjectMissing, Store
from stream.archive.proof.findings import ObjectFacts
from stream.archive.reading import reader
from stream.archive.rows.content import content_digest
from stream.archive.rows.partitioner import common_divisor
from stream.archive.rows.segment import current

_IDENTITY: Final = ["source_topic_id", "source_partition", "source_offset", "item_id"]


def facts_of(store: Store, *, deep: bool = False) -> Callable[[ObjectRef], ObjectFacts | None]:
    """Return the function that looks at one object for the verifier. ``deep`` reads the rows too."""

    def look(ref: ObjectRef) -> ObjectFacts | None:
        try:
            data = store.get(ref.key)
        except ObjectMissing:
            return _removed(store, ref)
        digest = hashlib.sha256(data).hexdigest()
        if digest != ref.sha256:
            return ObjectFacts(digest, len(data))
        file = pq.ParquetFile(pa.BufferReader(data))
        if not deep:
            return ObjectFacts(digest, len(data), file.metadata.num_rows)
        identities = current(file.read(columns=[name for name in _IDENTITY if name in file.schema_arrow.names]))
        repeated = identities.num_rows - identities.group_by(_IDENTITY).aggregate([]).num_rows
        name = object_name(ref.key)
        found = ObjectFacts(digest, len(data), identities.num_rows, _sources(identities), repeated)
        if name is None or name.number is None:
            return found
        rows = file.read()
        divisor = common_divisor(rows["user_id_hash"], name.chain.partition)
        return replace(found, content=content_digest(rows), divisor=divisor)

    return look


def rows_by_user(store: Store) -> Callable[[ObjectRef, frozenset[str]], Mapping[str, int] | None]:
    """Return the function that counts the rows of users (16 hexadecimal digits) in an object for the verifier.

    It returns None if no object with the stated SHA-256 exists.
    """

    def count(ref: ObjectRef, users: frozenset[str]) -> Mapping[str, int] | None:
        try:
            data = store.get(ref.key)
        except ObjectMissing:
            return None
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            return None
        column = pq.read_table(pa.BufferReader(data), columns=["user_id_hash"])["user_id_hash"]
        return {user: pc.sum(pc.equal(column, bytes.fromhex(user))).as_py() or 0 for user in users}

    return count


def _removed(store: Store, ref: ObjectRef) -> ObjectFacts | None:
    try:
        change = reader.removed_since(store, ref)
    except InvalidEntry:
        return None
    return None if change is None else ObjectFacts("", 0, removed_by=change.key)


def _sources(identities: pa.Table) -> dict[Source, Intervals]:
    topics = pc.fill_null(identities["source_topic_id"], "")
    found: dict[Source, Intervals] = {}
    pairs = pa.table([topics, identities["source_partition"]], ["topic", "partition"]).group_by(["topic", "partition"])
    for pair in pairs.aggregate([]).to_pylist():
        source = Source(**pair)
        here = identities["source_offset"].filter(
            pc.and_(pc.equal(topics, source.topic), pc.equal(identities["source_partition"], source.partition))
        )
        found[source] = Intervals.of_offsets(np.asarray(here.to_numpy(), np.int64))
    return found
