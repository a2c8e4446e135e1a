"""The terminal view of a replay, made for investigations and for a data subject's own request.

This view names every feature that contributed to a score, the sensitive ones too. No other terminal view does.
"""

from __future__ import annotations

from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from models.catalog import Catalog
from stream.replay.compare import Replayed
from stream.terminal.ledger import ledger

_COLOURS: Final = {"same": "green", "reworded": "yellow"}


def replay_view(replayed: Replayed, topic: str, catalog: Catalog, items: int) -> Group:
    """Lay out the comparison, the attention heads, the full ledgers of the first ``items`` items, and the verdict."""
    source = replayed.archived.source
    place = f"{topic} {source.partition}@{source.offset}"
    head = f"{replayed.model_version} · policy {replayed.policy} · {replayed.impression['locale']} · {place}"
    body: list[RenderableType] = [_comparison(replayed, head)]
    if replayed.heads.events and replayed.heads.weights:
        body.append(_heads_table(replayed, catalog))
    ledgers = [(item, detail) for item in replayed.items if (detail := item.detail) is not None]
    for item, detail in ledgers[:items]:
        name = catalog.titles[int(catalog.index([item.item_id])[0]) - 1]
        body += [Text(f"{item.position}. {name}", "bold"), *ledger(detail, sensitive=True)]
    if len(ledgers) > items:
        body.append(Text(f"{len(ledgers) - items} more ledgers: --items {len(ledgers)}, or --json", style="dim"))
    return Group(*body, _verdict(replayed))


def _comparison(replayed: Replayed, head: str) -> Table:
    table = Table("", "item", "archived", "recomputed", "equal", title=head, box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = "left"
    table.add_column("text", overflow="fold")
    for item in replayed.items:
        reason = item.verdict if not item.differing else f"{item.verdict}: {', '.join(item.differing)}"
        text = item.explanation["text"] if item.explanation is not None else ""
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
    total = len(replayed.items)
    same = sum(item.verdict == "same" for item in replayed.items)
    reworded = sum(item.verdict == "reworded" for item in replayed.items)
    if same == total:
        return Text(f"Proven: {total} of {total} texts have the archived hash, and the rows say nothing else.", "green")
    if same + reworded == total:
        return Text(
            f"Not proven: {reworded} of {total} texts were worded by templates that have changed since; all else is "
            "equal. The release that had those templates can prove the texts.",
            "yellow",
        )
    return Text(
        f"Not the same: {total - same - reworded} of {total} items differ from what these models explain for this "
        "impression. Run whyrec archive verify to find out whether a row was changed.",
        "bold red",
    )


def _heads_table(replayed: Replayed, catalog: Catalog) -> Table:
    found, session = replayed.heads, replayed.impression["session"]
    table = Table("Attention of each head (not evidence of a cause)", box=box.SIMPLE_HEAD, pad_edge=False)
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
