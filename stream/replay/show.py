"""A replay as a person reads it on a terminal, and as a program reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from models.catalog import Catalog
from schemas.events import Detail
from stream.replay.judge import Heads, Item, Replayed

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
    """Lay out the comparison, the heads, and the full ledger of the first so many items."""
    source = replayed.archived.source
    place = f"{topic} {source.partition}@{source.offset}"
    head = f"{replayed.model_version} · policy {replayed.policy} · {replayed.impression['locale']} · {place}"
    titles = _titles(replayed, catalog)
    body: list[RenderableType] = [_comparison(replayed, head), _verdict(replayed)]
    if replayed.heads.events:
        body.append(_heads_table(replayed.heads, titles))
    ledgers = [(item, detail) for item in replayed.items if (detail := item.detail) is not None]
    for item, detail in ledgers[:items]:
        body += [_features_table(item, detail, catalog), _events_table(item, detail)]
    if len(ledgers) > items:
        body.append(Text(f"{len(ledgers) - items} more ledgers: --items {len(ledgers)}, or --json", style="dim"))
    return Group(*body)


def _comparison(replayed: Replayed, head: str) -> Table:
    table = Table("", "item", "archived", "recomputed", "equal", title=head, title_justify="left")
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


def _heads_table(found: Heads, titles: Sequence[str]) -> Table:
    table = Table("event", "", title="Attention of every head (where the model looked, not the reason)")
    table.title_justify = "left"
    columns = [(layer, head) for layer, heads in enumerate(found.weights) for head in range(len(heads))]
    for layer, head in columns:
        table.add_column(f"{layer}.{head}", justify="right")
    for place, event in enumerate(found.events):
        weights = (found.weights[layer][head][place] for layer, head in columns)
        table.add_row(str(event), titles[event], *(f"{weight:.3f}" for weight in weights))
    return table


def _features_table(item: Item, detail: Detail, catalog: Catalog) -> Table:
    name = catalog.titles[int(catalog.index([item.item_id])[0]) - 1]
    table = Table("feature", title=f"{item.position}. {name}: SHAP values of all features", title_justify="left")
    table.add_column("value", justify="right")
    table.add_column("contribution", justify="right")
    for feature in sorted(detail["features"], key=lambda each: -abs(each["contribution"])):
        table.add_row(feature["display_name"], f"{feature['value']:.4g}", f"{feature['contribution']:+.4f}")
    table.add_section()
    table.add_row("base value", "", f"{detail['base_value']:+.4f}")
    table.add_row(f"score (the sum, residual {detail['residual']:.1e})", "", f"{detail['raw_score']:+.4f}")
    return table


def _events_table(item: Item, detail: Detail) -> Table:
    table = Table("event", "", "", title=f"{item.position}. Effects of all past events", title_justify="left")
    for column in ("attention", "similarity", "effect"):
        table.add_column(column, justify="right")
    for event in detail["events"]:
        near = "" if event["similarity"] is None else f"{event['similarity']:+.2f}"
        table.add_row(
            str(event["event"]),
            event["title"],
            event["engagement"],
            f"{event['attention']:.3f}",
            near,
            f"{event['effect']:+.4f}",
        )
    table.add_section()
    table.add_row("", "in company only", "", "", "", f"{detail['events_together']:+.4f}")
    table.add_row("", "session score", "", "", "", f"{detail['session_score']:+.4f}")
    return table


def _titles(replayed: Replayed, catalog: Catalog) -> list[str]:
    ids = [event["item_id"] for event in replayed.impression["session"]]
    index = catalog.index(ids).tolist()
    return [catalog.titles[known - 1] if known else item_id for known, item_id in zip(index, ids, strict=True)]


def _hex(value: bytes | None) -> str:
    return "-" if value is None else value.hex()
