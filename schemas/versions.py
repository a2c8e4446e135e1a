"""Every version of every event's Avro schema, and which of them is written."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.events import EventName

VERSIONS: Final[dict[EventName, tuple[int, ...]]] = {
    "impression": (1, 2, 3),
    "explanation": (1, 2, 3),
    "audit": (1, 2, 3),
    "dead_letter": (1,),
}
"""Every version ever written, oldest first; the last is the one we write, and all are read."""


@cache
def schema(event: EventName, version: int | None = None) -> dict[str, Any]:
    """Return the Avro schema of an event as JSON, by default its newest version; shared, so not to be changed."""
    number = VERSIONS[event][-1] if version is None else version
    found: dict[str, Any] = json.loads(files("schemas").joinpath(f"avro/{event}.v{number}.avsc").read_text("utf-8"))
    return found


@cache
def schema_fingerprint(event: EventName, version: int | None = None) -> str:
    """CRC-64-AVRO of the schema's parsing canonical form (Avro specification, "Schema Fingerprints"), 16 hex."""
    return str(fingerprint(to_parsing_canonical_form(schema(event, version)), "CRC-64-AVRO"))


@cache
def parsed(event: EventName, version: int | None = None) -> Any:
    """Return the schema as fastavro wants it, by default its newest version; shared, so not to be changed."""
    tree = parse_schema(schema(event, version))
    _decode_byte_defaults(tree)
    return tree


def resolvable(ours: Any, written: Any) -> Any:
    """Return our schema with the writer's enum wherever we have a string and the writer an enum.

    The Avro specification ("Schema Resolution") knows no way from an enum to a string, so a reader resolves to the
    writer's enum, whose symbols are read as text.
    """
    if isinstance(ours, list) or not isinstance(written, dict):
        return ours
    if ours == "string" and written["type"] == "enum":
        return written
    if isinstance(ours, dict) and ours["type"] == written["type"] == "array":
        return ours | {"items": resolvable(ours["items"], written["items"])}
    if isinstance(ours, dict) and ours["type"] == written["type"] == "record":
        theirs = {field["name"]: field["type"] for field in written["fields"]}
        return ours | {"fields": [_resolvable_field(field, theirs.get(field["name"])) for field in ours["fields"]]}
    return ours


def _resolvable_field(field: dict[str, Any], written: Any) -> dict[str, Any]:
    kind = resolvable(field["type"], written)
    # The default of our string is none of the writer's symbols, and is not needed, since the writer has the field.
    default = {} if field["type"] == "string" != kind else {name: field[name] for name in ("default",) if name in field}
    return {"name": field["name"], "type": kind} | default


def _decode_byte_defaults(node: Any) -> None:
    """Turn defaults of bytes, which JSON writes as text (Avro specification, "Complex Types"), into what they mean."""
    for field in node["fields"] if isinstance(node, dict) and node["type"] == "record" else ():
        default, kind = field.get("default"), field["type"]
        if isinstance(default, str) and (kind == "bytes" or (isinstance(kind, dict) and kind["type"] == "fixed")):
            field["default"] = default.encode("latin-1")
        _decode_byte_defaults(kind["items"] if isinstance(kind, dict) and kind["type"] == "array" else kind)
