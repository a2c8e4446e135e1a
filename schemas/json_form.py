"""Events as JSON: the shape of the Avro record, fixed bytes as hexadecimal text, null for a NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from fastavro.validation import ValidationError, validate

from schemas.errors import UndecodableEvent
from schemas.events import EventName
from schemas.versions import VERSIONS, parsed

_GLIMPSE: Final = 80
"""Characters of a wrong value or name that an error shows."""


def from_json(event: EventName, value: bytes) -> dict[str, Any]:
    """Read a record from JSON of the schema's shape; bytes are hex strings, null in a list of numbers is NaN.

    A field that has a default may be missing, so that JSON of an older version is read too.

    Raises:
        UndecodableEvent: not JSON, a missing, an extra or a repeated field, or a value of another type.

    """
    try:
        return _record(event, value)
    except RecursionError as error:
        raise UndecodableEvent(
            f"JSON does not fit {event}.v{VERSIONS[event][-1]}.avsc: lists or objects are nested too deeply; send the "
            "schema's shape"
        ) from error


def _record(event: EventName, value: bytes) -> dict[str, Any]:
    try:
        text = value.decode()
        record = json.loads(text, object_pairs_hook=_object)
        if "\\u" in text:
            # An escape may be half of a character (a lone surrogate), which UTF-8 cannot encode.
            json.dumps(record, ensure_ascii=False).encode()
    except ValueError as error:
        raise UndecodableEvent(f"not JSON: {error}") from error
    try:
        record = _from_plain(record, parsed(event))
        validate(record, parsed(event), strict=True)
    except ValidationError as error:
        reasons = "; ".join(map(_misfit, error.errors)) or str(error)
        raise UndecodableEvent(f"JSON does not fit {event}.v{VERSIONS[event][-1]}.avsc: {reasons}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UndecodableEvent(f"JSON does not fit {event}.v{VERSIONS[event][-1]}.avsc: {error}") from error
    return dict(record)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; of a name that is there twice, readers of JSON keep one value or the other (RFC 8259, 4)."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the field {_glimpse(twice)!r} more than once; send each field once")
    return fields


def to_json(record: Mapping[str, Any]) -> str:
    """Write a record as JSON that :func:`from_json` reads back: bytes as hex, NaN as null."""
    return json.dumps(_to_plain(record), ensure_ascii=False, allow_nan=False)


def _from_plain(value: Any, node: Any) -> Any:
    if isinstance(node, list):
        return _from_union(value, node)
    kind = node["type"] if isinstance(node, dict) else node
    if kind == "record" and isinstance(value, dict):
        types = {field["name"]: field["type"] for field in node["fields"]}
        # As Avro has it: what an older version did not know has its default.
        defaults = {field["name"]: field["default"] for field in node["fields"] if "default" in field}
        if extra := sorted(value.keys() - types.keys()):
            raise ValueError(
                f"{_short(node['name'])} has no field {_glimpse(', '.join(extra))}; expected {', '.join(types)}"
            )
        if missing := [name for name in types if name not in value and name not in defaults]:
            raise ValueError(f"{_short(node['name'])} lacks {', '.join(missing)}; expected {', '.join(types)}")
        given = defaults | {name: _from_plain(child, types[name]) for name, child in value.items()}
        return {name: given[name] for name in types}
    if kind == "array" and isinstance(value, list):
        if node["items"] in ("float", "double"):
            return [math.nan if child is None else child for child in value]
        return [_from_plain(child, node["items"]) for child in value]
    if kind in ("bytes", "fixed") and isinstance(value, str):
        return bytes.fromhex(value)
    return math.nan if value is None and kind in ("float", "double") else value


def _from_union(value: Any, nodes: list[Any]) -> Any:
    """Read by the branch that an object is; every other value is its own, and null is null here, not NaN."""
    records = [node for node in nodes if isinstance(node, dict) and node["type"] == "record"]
    return _from_plain(value, records[0]) if isinstance(value, dict) and records else value


def _misfit(reason: Any) -> str:
    """Say which field of JSON is not as the schema has it: what is there, at most a glimpse of it, and what should be.

    ``reason`` is one of fastavro's, with a datum, a schema and a field.
    """
    wanted = reason.schema
    if isinstance(wanted, dict):
        wanted = wanted.get("name", wanted["type"])
        if isinstance(reason.schema.get("symbols"), list):
            wanted = f"one of {', '.join(reason.schema['symbols'])}"
    there = json.dumps(_to_plain(reason.datum), ensure_ascii=False)
    return f"{_short(reason.field)} is {_glimpse(there)}; expected {_short(wanted)}"


def _glimpse(text: str) -> str:
    return text if len(text) <= _GLIMPSE else f"{text[:_GLIMPSE]}…"


def _short(name: Any) -> str:
    return str(name).removeprefix("whyrec.")


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _to_plain(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_to_plain(child) for child in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
