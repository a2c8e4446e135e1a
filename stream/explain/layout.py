"""How the newest schema of an event lies on the wire, in one line, for what reads or writes it by itself."""

from __future__ import annotations

from typing import Any

from schemas.events import EventName
from schemas.versions import schema


def layout(event: EventName) -> str:
    """Spell the newest schema of an event: its fields in their order, each with its type."""
    return " ".join(f"{field['name']}:{_spell(field['type'])}" for field in schema(event)["fields"])


def require(event: EventName, known: str, who: str) -> None:
    """Check that the newest schema is the one that `who` was written for.

    Raises:
        ImportError: it is another; both are to be changed together.

    """
    if layout(event) != known:
        raise ImportError(f"the newest schema of {event} is not what {who} was written for; change both")


def _spell(node: Any) -> str:
    if isinstance(node, list):
        # What hangs on a question mark is written as null only; the rest is the dictionaries' business.
        other = node[1]
        return (other if isinstance(other, str) else str(other["type"])) + "?"
    if isinstance(node, str):
        return node if node not in ("whyrec.ExplanationType", "ExplanationType", "Status", "Basis") else "enum"
    if node["type"] == "array":
        items = node["items"]
        return f"array<{_fields(items) if isinstance(items, dict) else items}>"
    return f"record<{_fields(node)}>" if node["type"] == "record" else str(node["type"])


def _fields(record: Any) -> str:
    return " ".join(f"{field['name']}:{_spell(field['type'])}" for field in record["fields"])
