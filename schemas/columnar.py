"""Avro to Arrow and back, a batch at a time: one codec for every version of every event, none per schema.

``pyruhvro`` reads and writes the bytes; this module is its only user. The library follows the Avro schema, but accepts
more than the specification allows. What it lacks is added here, in terms of the schema alone:

- Bytes after the end of a record. Every body is read with one more string behind its record, a secret of the process.
  Only a record that ends where its body ends is followed by that string.
- An int or an enum's index outside its range. Both are read as long, which has the same encoding, and then narrowed.
- Text that is not UTF-8. Arrow validates all columns of a batch.
- ``fixed``, which the library does not know. Eight bytes are read and written as a double, bit by bit.

Avro 1.12 specification, "Binary Encoding". In Arrow, an enum is the int32 index of its symbol, ``fixed`` is binary of
that size, and a union with null is a nullable column.
"""

from __future__ import annotations

import json
import numbers
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.avro_types import Node, event_node, zero
from schemas.errors import InvalidEvent
from schemas.events import EventName

_DOUBLE_BYTES: Final = 8
_GLIMPSE: Final = 64
"""Characters of a wrong value that an error shows."""

_END: Final = secrets.token_hex(8)
_END_FIELD: Final = f"end_of_record_{_END}"
_END_BYTES: Final = bytes([len(_END) << 1]) + _END.encode()


@dataclass(frozen=True, slots=True)
class Decoded:
    """Records of one event as columns. ``rows[i]``: which of the bodies row i was; the others are no such records."""

    batch: pa.RecordBatch
    rows: list[int]


def arrow_schema(event: EventName) -> pa.Schema:
    """Return the Arrow schema of an event's newest version."""
    return pa.schema(list(event_node(event).arrow))


def decode(event: EventName, bodies: Sequence[bytes], writer: Node | None = None) -> Decoded:
    """Decode Avro bodies of an event into columns of its newest version; what is not exactly such a body is left out.

    ``writer``: the schema that wrote the bodies, from :func:`schemas.avro_types.writer_node`; None: the newest version.
    A field that it lacks has its default.
    """
    written = event_node(event) if writer is None else writer
    ended = [body + _END_BYTES for body in bodies]
    rows: list[int] = []
    parts: list[pa.RecordBatch] = []

    def decode_range(first: int, last: int) -> None:
        batch = _decoded(event, ended[first:last], written)
        if batch is not None:
            parts.append(batch)
            rows.extend(range(first, last))
        elif last - first > 1:  # the library does not say which body is at fault
            middle = (first + last) // 2
            decode_range(first, middle)
            decode_range(middle, last)

    decode_range(0, len(ended))
    if not parts:
        return Decoded(from_records(event, []), [])
    return Decoded(parts[0] if len(parts) == 1 else pa.concat_batches(parts), rows)


def encode(event: EventName, batch: pa.RecordBatch) -> list[bytes]:
    """Encode a batch as Avro bodies of the newest version; a column that the batch lacks has the schema's default."""
    if batch.num_rows == 0:
        return []
    node = event_node(event)
    arrays = [
        _wire_array(_column(batch, child, batch.num_rows, batch.schema.get_field_index(child.name)), child)
        for child in node.children
    ]
    wire = pa.RecordBatch.from_arrays(arrays, names=[child.name for child in node.children])
    [bodies] = pyruhvro.serialize_record_batch(wire, _writer_schema(event), 1)
    encoded: list[bytes] = bodies.to_pylist()
    return encoded


def from_records(event: EventName, records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Turn records into columns; a field that has a default may be missing.

    Raises:
        InvalidEvent: a record lacks a field, or a value does not fit the field's type.

    """
    node = event_node(event)
    try:
        whole = _array(records, node, event)
    except TypeError as error:
        raise InvalidEvent(f"not an event of {event}.avsc: {error}") from error
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"a text of {event}.avsc has half a character (a lone surrogate): {error}") from error
    except (OverflowError, pa.ArrowInvalid) as error:
        raise InvalidEvent(f"a number is larger than its type in {event}.avsc allows: {error}") from error
    return pa.RecordBatch.from_arrays(whole.flatten(), schema=arrow_schema(event))


def list_offsets(lists: pa.ListArray) -> npt.NDArray[np.int64]:
    """Return where each list begins and the last one ends in ``lists.flatten()``, int64 [len(lists) + 1]."""
    offsets: npt.NDArray[np.int64] = lists.offsets.to_numpy().astype(np.int64)
    return offsets - int(offsets[0])


def nested_records(event: EventName, path: Sequence[str], records: Sequence[Mapping[str, Any] | None]) -> pa.Array:
    """Turn records of a type inside an event into columns; ``path``: the fields that lead to it, "item" into a list."""
    node = event_node(event)
    for name in path:
        node = next(child for child in node.children if child.name == name)
    present = [record for record in records if record is not None]
    if not present:
        return pa.nulls(len(records), node.arrow)
    places = iter(range(len(present)))
    rows = pa.array([None if record is None else next(places) for record in records], pa.int32())
    return _array(present, node, node.name).take(rows)


def to_records(event: EventName, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Turn columns into records with the shape of ``schemas.events``: enums by name, fixed as bytes."""
    node = event_node(event)
    return [_named(record, node) for record in batch.to_pylist()]


def _decoded(event: EventName, ended: Sequence[bytes], written: Node) -> pa.RecordBatch | None:
    """Decode bodies that all are records followed by the end marker; None where one is not."""
    if not ended:
        return None
    try:
        wire = pyruhvro.deserialize_array(list(ended), _reader_schema(written))
        wire.validate(full=True)
        if not pc.all(pc.equal(wire.column(_END_FIELD), _END)).as_py():
            return None
        arrays = [_narrow(wire.column(child.name), child) for child in written.children]
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise  # first, since Arrow's error for a lack of memory is an ArrowException too
    except (ValueError, pa.ArrowException):
        return None
    except BaseException as error:
        # A panic of the library's Rust code is a BaseException.
        if type(error).__name__ != "PanicException":
            raise
        return None
    node = event_node(event)
    if written is not node:
        older = pa.StructArray.from_arrays(arrays, names=[child.name for child in written.children])
        arrays = _upgraded(older, written, node).flatten()
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(event))


def _upgraded(array: pa.Array, written: Node, node: Node) -> pa.Array:
    """Turn a column of an older version into one of the newest: defaults for new fields, text for an enum's symbols."""
    if node.kind == "string" and written.kind == "enum":
        return pa.array(written.symbols, pa.string()).take(array)
    if node.kind == "array":
        items = _upgraded(array.values, written.children[0], node.children[0])
        return pa.ListArray.from_arrays(array.offsets, items, type=node.arrow)
    if node.kind != "record":
        return array
    there = {child.name: (place, child) for place, child in enumerate(written.children)}
    children = []
    for child in node.children:
        place, older = there.get(child.name, (-1, child))
        column = _column(array, child, len(array), place)
        children.append(_upgraded(column, older, child) if place >= 0 else column)
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(children, fields=list(node.arrow), mask=mask)


@cache
def _reader_schema(written: Node) -> str:
    fields = [*_wire_fields(written, integer="long"), {"name": _END_FIELD, "type": "string"}]
    return json.dumps({"type": "record", "name": "written", "fields": fields})


@cache
def _writer_schema(event: EventName) -> str:
    return json.dumps({"type": "record", "name": event, "fields": _wire_fields(event_node(event), integer="int")})


def _wire_fields(node: Node, integer: str, prefix: str = "") -> list[dict[str, Any]]:
    return [
        {"name": child.name, "type": _wire_type(child, integer, f"{prefix}{place}_")}
        for place, child in enumerate(node.children)
    ]


def _wire_type(node: Node, integer: str, path: str) -> Any:
    """Spell a type with the same encoding out of those that the library knows; ``path`` makes record names unique."""
    kind: Any = node.kind
    if kind in ("int", "enum"):
        kind = integer
    elif kind == "array":
        kind = {"type": "array", "items": _wire_type(node.children[0], integer, path)}
    elif kind == "record":
        kind = {"type": "record", "name": f"record_{path}", "fields": _wire_fields(node, integer, path)}
    elif kind == "fixed":
        parts = [{"name": f"part{part}", "type": "double"} for part in range(node.size // _DOUBLE_BYTES)]
        kind = {"type": "record", "name": f"fixed_{path}", "fields": parts}
    return ["null", kind] if node.nullable else kind


def _narrow(array: pa.Array, node: Node) -> pa.Array:
    """Turn a column as the library reads it into the column of the event; ArrowInvalid where a number is too large."""
    if node.kind == "int":
        return array.cast(pa.int32())
    if node.kind == "enum":
        index = array.cast(pa.int32())
        least, most = pc.min_max(index).as_py().values()
        if least is not None and not 0 <= least <= most < len(node.symbols):
            raise pa.ArrowInvalid(f"expected an index of {len(node.symbols)} symbols, got {least} to {most}")
        return index
    if node.kind == "fixed":
        parts = np.stack([part.to_numpy(zero_copy_only=False) for part in array.flatten()], axis=1)
        return pa.FixedSizeBinaryArray.from_buffers(node.arrow, len(array), [None, pa.py_buffer(parts)])
    return _rebuilt(array, node, _narrow)


def _wire_array(array: pa.Array, node: Node) -> pa.Array:
    """Turn a column of the event into a column that the library writes: the inverse of ``_narrow``."""
    if not node.has_fixed and array.type == node.arrow:
        return array
    if node.kind == "fixed":
        width = node.size // _DOUBLE_BYTES
        data = np.frombuffer(array.buffers()[1], np.float64)
        parts = data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)
        names = [f"part{part}" for part in range(width)]
        return pa.StructArray.from_arrays([pa.array(parts[:, part]) for part in range(width)], names)
    return _rebuilt(array, node, _wire_array)


def _rebuilt(array: pa.Array, node: Node, change: Callable[[pa.Array, Node], pa.Array]) -> pa.Array:
    """Apply a change to what is inside a list or a struct."""
    if node.kind == "array":
        item = node.children[0]
        if array.offset:
            array = array.take(pa.array(np.arange(len(array))))
        values = change(array.values, item)
        return pa.ListArray.from_arrays(array.offsets, values, type=pa.list_(pa.field("item", values.type)))
    if node.kind == "record":
        children = [
            change(_column(array, child, len(array), array.type.get_field_index(child.name)), child)
            for child in node.children
        ]
        fields = [pa.field(child.name, made.type) for child, made in zip(node.children, children, strict=True)]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=fields, mask=mask)
    return array


def _column(parent: Any, child: Node, rows: int, place: int) -> pa.Array:
    """Return a column, or its default where the parent lacks it."""
    if place >= 0:
        return parent.field(place) if isinstance(parent, pa.StructArray) else parent.column(place)
    if child.has_default and child.default is None:
        return pa.nulls(rows, child.arrow)
    return _array([child.default] * rows, child, child.name)


def _array(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    """Turn values of one type into an array, strictly; TypeError names the field where a value is of another type."""
    mask = None
    if node.nullable and (absent := [value is None for value in values]) and any(absent):
        mask = pa.array(absent)
        values = [zero(node) if value is None else value for value in values]
    if node.kind == "record":
        _require(values, (Mapping,), path, "a record")
        children = [_array(_field(values, child, path), child, f"{path}.{child.name}") for child in node.children]
        return pa.StructArray.from_arrays(children, fields=list(node.arrow), mask=mask)
    if node.kind == "array":
        _require(values, (list, tuple, np.ndarray), path, "a list")
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        inner = _array([each for value in values for each in value], node.children[0], f"{path}[]")
        return pa.ListArray.from_arrays(pa.array(offsets), inner, type=node.arrow, mask=mask)
    flat = _LEAVES[node.kind](values, node, path)
    return flat if mask is None else pc.if_else(mask, pa.scalar(None, flat.type), flat)


def _field(records: Sequence[Mapping[str, Any]], child: Node, path: str) -> list[Any]:
    if child.has_default:
        return [record.get(child.name, child.default) for record in records]
    try:
        return [record[child.name] for record in records]
    except KeyError as error:
        raise TypeError(f"{path} lacks the field {child.name}") from error


def _require(values: Sequence[Any], types: tuple[type, ...], path: str, wanted: str) -> None:
    for kind in set(map(type, values)):
        if not issubclass(kind, types) or (kind is bool and bool not in types):
            wrong = next(value for value in values if type(value) is kind)
            raise TypeError(f"{path} is {_glimpse(wrong)}, expected {wanted}")


def _glimpse(value: Any) -> str:
    """Show the beginning of a value, or its type if it cannot be shown."""
    try:
        return repr(value)[:_GLIMPSE]
    except Exception:  # noqa: BLE001 (whatever a caller's object does, the error has to name its field)
        return f"a value of {type(value).__name__}"


def _strings(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    _require(values, (str,), path, "text")
    return pa.array(values, node.arrow)


def _integers(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    _require(values, (numbers.Integral,), path, "a whole number")
    try:
        return pa.array(values, node.arrow)
    except (OverflowError, pa.ArrowInvalid) as error:
        limits = np.iinfo(node.arrow.to_pandas_dtype())
        wrong = next(value for value in values if not limits.min <= value <= limits.max)
        raise OverflowError(f"{path} is {_glimpse(wrong)}") from error


def _floats(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    _require(values, (numbers.Real,), path, "a number, NaN where it is missing")
    try:
        wide = np.array(values, dtype=np.float64)
    except OverflowError as error:
        raise OverflowError(f"{path} has a whole number of more than 308 digits") from error
    with np.errstate(over="ignore"):
        narrow = wide.astype(node.arrow.to_pandas_dtype())
    beyond = np.isinf(narrow) & ~np.isinf(wide)
    if beyond.any():
        raise OverflowError(f"{path} is {wide[beyond][0]:g}")
    return pa.array(narrow)


def _booleans(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    _require(values, (bool, np.bool_), path, "true or false")
    return pa.array(values, node.arrow)


def _symbols(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    index = {symbol: number for number, symbol in enumerate(node.symbols)}
    try:
        return pa.array([index[value] for value in values], node.arrow)
    except (KeyError, TypeError) as error:
        wrong = next(value for value in values if not isinstance(value, str) or value not in index)
        raise TypeError(f"{path} is {_glimpse(wrong)}, expected one of {', '.join(node.symbols)}") from error


def _fixed(values: Sequence[Any], node: Node, path: str) -> pa.Array:
    _require(values, (bytes,), path, "bytes")
    if any(len(value) != node.size for value in values):
        raise TypeError(f"{path} has another length than {node.size} bytes")
    return pa.array(values, node.arrow)


_LEAVES: Final[dict[str, Callable[[Sequence[Any], Node, str], pa.Array]]] = {
    "string": _strings,
    "int": _integers,
    "long": _integers,
    "float": _floats,
    "double": _floats,
    "boolean": _booleans,
    "enum": _symbols,
    "fixed": _fixed,
}


def _named(value: Any, node: Node) -> Any:
    if value is None or not node.has_symbols:
        return value
    if node.kind == "enum":
        return node.symbols[value]
    if node.kind == "array":
        return [_named(each, node.children[0]) for each in value]
    return {child.name: _named(value[child.name], child) for child in node.children}
