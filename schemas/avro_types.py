"""The Avro schema of an event as a tree of types, each with the Arrow type that holds its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pyarrow as pa

from schemas.events import EventName
from schemas.versions import schema

_ARROW: Final[dict[str, pa.DataType]] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
_ZEROS: Final[dict[str, Any]] = {"string": "", "int": 0, "long": 0, "float": 0.0, "double": 0.0, "boolean": False}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One type of a schema, with the field that holds it; two nodes are equal only if they are the same object.

    kind: the Avro type; children: the fields of a record, or the one item type of an array; symbols: of an enum;
    size: bytes of a fixed; has_symbols and has_fixed: whether an enum or a fixed is part of the type.
    """

    name: str
    kind: str
    arrow: pa.DataType
    nullable: bool = False
    children: tuple[Node, ...] = ()
    symbols: tuple[str, ...] = ()
    size: int = 0
    has_default: bool = False
    default: Any = None
    has_symbols: bool = False
    has_fixed: bool = False

    @property
    def field(self) -> pa.Field:
        """The Arrow field of this type; Arrow lets it be null, since inside a struct that is null all fields are."""
        return pa.field(self.name, self.arrow)


@cache
def event_node(event: EventName) -> Node:
    """Return the record type of an event's newest version.

    Raises:
        TypeError: the schema has a type that no event of ours has had so far.

    """
    return _node("", schema(event), {})


def writer_node(event: EventName, written: Any) -> Node | None:
    """Return the record type of a schema that messages of an event were written with, as JSON.

    None where more than the addition of defaults, or text for an enum's symbols, would lead to the event's newest
    version, or where a type is unknown.
    """
    try:
        newest = event_node(event)
        node = newest if written is schema(event) else _node("", written, {})
    except (TypeError, KeyError, AttributeError):
        return None
    return node if _is_extended(node, newest) else None


def _is_extended(written: Node, node: Node) -> bool:
    """Whether a type is a written type with fields and symbols added, or text where an enum was."""
    if written.kind == "enum" and node.kind == "string":
        return written.nullable <= node.nullable
    if (written.kind, written.size) != (node.kind, node.size) or written.nullable > node.nullable:
        return False
    if node.symbols[: len(written.symbols)] != written.symbols:
        return False
    if node.kind == "array":
        return _is_extended(written.children[0], node.children[0])
    there = {child.name: child for child in written.children}
    return all(
        _is_extended(there[child.name], child) if child.name in there else child.has_default for child in node.children
    )


def zero(node: Node) -> Any:
    """Return a value of a type, for a place whose value is null."""
    if node.kind == "record":
        return {child.name: None if child.nullable else zero(child) for child in node.children}
    if node.kind == "array":
        return []
    if node.kind == "enum":
        return node.symbols[0]
    return bytes(node.size) if node.kind == "fixed" else _ZEROS[node.kind]


def _node(name: str, avro: Any, named: dict[str, Any], **field: Any) -> Node:
    """Build the node of a type; ``named`` holds the named types met so far, ``field`` what the field says of it."""
    if isinstance(avro, list):
        # Bytes tell the types of a union apart by their places.
        if len(avro) != 2 or avro[0] != "null" or avro[1] == "null":
            raise TypeError(f"{name}: expected a union of null and, second, one other type, got {avro}")
        return _node(name, avro[1], named, nullable=True, **field)
    if isinstance(avro, str):
        avro = named.get(avro.rpartition(".")[2], {"type": avro})
    if "name" in avro:
        named[avro["name"]] = avro
    kind = avro["type"]
    details = _BUILDERS.get(kind, _plain)(avro, named)
    return Node(name, kind, **details, **field)


def _plain(avro: dict[str, Any], _named: dict[str, Any]) -> dict[str, Any]:
    """Describe a primitive type; a logical type is read as the type that it annotates."""
    if avro["type"] not in _ARROW:
        raise TypeError(f"no Arrow type is known for the Avro type {avro['type']}")
    return {"arrow": _ARROW[avro["type"]]}


def _record(avro: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    children = tuple(_field(each, named) for each in avro["fields"])
    if not children:
        raise TypeError(f"{avro['name']}: expected a record of at least one field, got none")
    return {"arrow": pa.struct([child.field for child in children]), "children": children, **_parts(children)}


def _array(avro: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    item = _node("item", avro["items"], named)
    return {"arrow": pa.list_(item.field), "children": (item,), **_parts((item,))}


def _parts(children: tuple[Node, ...]) -> dict[str, bool]:
    return {
        "has_symbols": any(child.has_symbols for child in children),
        "has_fixed": any(child.has_fixed for child in children),
    }


def _enum(avro: dict[str, Any], _named: dict[str, Any]) -> dict[str, Any]:
    return {"arrow": pa.int32(), "symbols": tuple(avro["symbols"]), "has_symbols": True}


def _fixed(avro: dict[str, Any], _named: dict[str, Any]) -> dict[str, Any]:
    if avro["size"] % 8:
        raise TypeError(f"{avro['name']}: expected a fixed of a multiple of 8 bytes, got {avro['size']}")
    return {"arrow": pa.binary(avro["size"]), "size": avro["size"], "has_fixed": True}


_BUILDERS: Final[dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]]] = {
    "record": _record,
    "array": _array,
    "enum": _enum,
    "fixed": _fixed,
}


def _field(avro: dict[str, Any], named: dict[str, Any]) -> Node:
    if "default" not in avro:
        return _node(avro["name"], avro["type"], named)
    default = avro["default"]
    if isinstance(avro["type"], dict) and avro["type"]["type"] == "fixed":
        default = default.encode("latin-1")  # Avro 1.12 specification, "Complex Types"
    return _node(avro["name"], avro["type"], named, has_default=True, default=default)
