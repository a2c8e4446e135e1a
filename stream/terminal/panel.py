"""An explanation event as a person reads it on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from models.catalog import Catalog
from schemas.events import Citation, Evidence, Explanation, ItemExplanation
from stream.terminal.ledger import ledger

_COLOURS = {"verified": "green", "factual": "cyan", "generic": "white", "model_mismatch": "yellow"}


def panel(explanation: Explanation, catalog: Catalog, items: int | None = None) -> Panel:
    """Lay out the items of a slate from the top, the first ``items`` of them, each with its sentence and evidence."""
    shown = sorted(explanation["items"], key=lambda item: item["position"])[:items]
    body: list[RenderableType] = [line for item in shown for line in _item(item, catalog)]
    if not body:
        body = ["The slate has no items."]
    title = f"{explanation['model_version']} · policy {explanation['policy']} · {explanation['locale']}"
    return Panel(Group(*body), title=title, subtitle=explanation["request_id"])


def _item(item: ItemExplanation, catalog: Catalog) -> list[RenderableType]:
    index = int(catalog.index([item["item_id"]])[0])
    name = catalog.titles[index - 1] if index else item["item_id"]
    head = Text.assemble(
        f"{item['position']:>2}. ",
        (name, "bold"),
        "  ",
        (f"{item['type']} · {item['status']}", _COLOURS[item["status"]]),
    )
    lines: list[RenderableType] = [Text(item["text"])]
    if item["basis_text"]:
        lines.append(Text(item["basis_text"]))
    lines += [Text(line, style="dim") for line in _evidence_lines(item["evidence"], features=item["detail"] is None)]
    if item["detail"] is not None:
        lines += ledger(item["detail"])
    return [head, *(Padding(line, (0, 0, 0, 4)) for line in lines)]


def _rank(cited: Citation) -> str:
    before, after = cited["rank"], cited["rank_without"]
    return f"the rank stays {before}" if before == after else f"the rank goes from {before} to {after}"


def _evidence_lines(evidence: Evidence, *, features: bool) -> list[str]:
    lines = [
        f"event {cited['event']} “{cited['title']}”: without it the score falls by {cited['score_drop']:.3f}, "
        f"{_rank(cited)} (attention {cited['attention']:.2f})"
        for cited in evidence["history"]
    ]
    if features and evidence["features"]:
        told = ", ".join(f"{each['display_name']} {each['contribution']:+.3f}" for each in evidence["features"])
        lines.append(f"features: {told}")
    shares = {
        "personal share": evidence["personal_share"],
        "category match": evidence["category_match"],
        "residual": evidence["residual"],
    }
    known = [f"{name} {value:.3g}" for name, value in shares.items() if value is not None]
    return [*lines, " · ".join(known)] if known else lines
