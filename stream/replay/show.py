"""A replay as a person reads it on a terminal, and as a program reads it."""

from __future__ import annotations

from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from models.catalog import Catalog
from stream.replay.judge import Replayed
from stream.terminal.ledger import ledger

_COLOURS: Final = {"same": "green", "reworded": "yellow"}


def document(replayed: Replayed, topic: str) -> dict[str, Any]:
    """Return everything as plain values: hashes as hex, NaN where nothing is known."""
    source = replayed.archived.source
    return {
        "request_id": replayed.impression["request_id"],
        "source": {
            "topic": topic,
            "topic_id": source.topic_id,
            "partition": source.partition,
            "offset": source.offset,
        },
        "model_version": replayed.model_version,
        "policy": replayed.policy,
        "locale": replayed.impression["locale"],
        "proven": replayed.proven,
        "items": [
            {
                "item_id": item.item_id,
                "position": item.position,
                "verdict": item.verdict,
                "differing": list(item.differing),
                "archived_text_hash": item.archived_hash,
                "text_hash": item.hash,
                "text": None if item.said is None else item.said["text"],
                "detail": item.detail,
            }
            for item in replayed.items
        ],
        "attention": {"events": replayed.heads.events, "layers": replayed.heads.weights},
    }


def render(replayed: Replayed, topic: str, catalog: Catalog, items: int) -> Group:
    """Lay out the comparison, the heads, the full ledger of the first so many items, and the verdict."""
    source = replayed.archived.source
    place = f"{topic} {source.partition}@{source.offset}"
    head = f"{replayed.model_version} · policy {replayed.policy} · {replayed.impression['locale']} · {place}"
    body: list[RenderableType] = [_comparison(replayed, head)]
    if replayed.heads.events:
        body.append(_heads_table(replayed, catalog))
    ledgers = [(item, detail) for item in replayed.items if (detail := item.detail) is not None]
    for item, detail in ledgers[:items]:
        name = catalog.titles[int(catalog.index([item.item_id])[0]) - 1]
        body += [Text(f"{item.position}. {name}", "bold"), *ledger(detail, whole=True)]
    if len(ledgers) > items:
        body.append(Text(f"{len(ledgers) - items} more ledgers: --items {len(ledgers)}, or --json", style="dim"))
    return Group(*body, _verdict(replayed))


def _comparison(replayed: Replayed, head: str) -> Table:
    table = Table("", "item", "archived", "recomputed", "equal", title=head, box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = "left"
    table.add_column("text", overflow="fold")
    for item in replayed.items:
        reason = item.verdict if not item.differing else f"{item.verdict}: {', '.join(item.differing)}"
        text = item.said["text"] if item.said is not None else ""
        table.add_row(
            str(item.position),
            item.item_id,
            _hex(item.archived_hash),
            _hex(item.hash),
            Text("yes" if item.verdict == "same" else reason, style=_COLOURS.get(item.verdict, "bold red")),
            text,
        )
    return table


def _verdict(replayed: Replayed) -> Text:
    of = len(replayed.items)
    same = sum(item.verdict == "same" for item in replayed.items)
    reworded = sum(item.verdict == "reworded" for item in replayed.items)
    if same == of:
        return Text(f"Proven: {of} of {of} texts have the archived hash, and the rows say nothing else.", "green")
    if same + reworded == of:
        return Text(
            f"Not proven: {reworded} of {of} texts were worded by templates that have changed since; all else is the "
            "same. The release that had them can prove it.",
            "yellow",
        )
    return Text(
        f"Not the same: {of - same - reworded} of {of} items are not what these models say of this impression. Was a "
        "row changed? whyrec archive verify tells.",
        "bold red",
    )


def _heads_table(replayed: Replayed, catalog: Catalog) -> Table:
    found, session = replayed.heads, replayed.impression["session"]
    table = Table("Where each head looked (no reason for anything)", box=box.SIMPLE_HEAD, pad_edge=False)
    columns = [(layer, head) for layer, heads in enumerate(found.weights) for head in range(len(heads))]
    for layer, head in columns:
        table.add_column(f"{layer}.{head}", justify="right", no_wrap=True)
    for place, event in reversed(list(enumerate(found.events))):
        title = catalog.titles[int(catalog.index([session[event]["item_id"]])[0]) - 1]
        weights = (f"{found.weights[layer][head][place]:.3f}" for layer, head in columns)
        table.add_row(f"{event} {session[event]['engagement']} “{title}”", *weights)
    return table


def _hex(value: bytes | None) -> str:
    return "-" if value is None else value.hex()
