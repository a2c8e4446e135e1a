"""The terminal view of an explanation event. It never names a sensitive feature."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from models.bundle import Bundle
from schemas.events import Citation, Evidence, Explanation, ItemExplanation
from stream.terminal.ledger import ledger

_COLOURS = {"verified": "green", "factual": "cyan", "generic": "white", "model_mismatch": "yellow"}


def panel(explanation: Explanation, bundle: Bundle, items: int | None = None) -> Panel:
    """Lay out the items of a slate by position, each with its text and its evidence.

    bundle gives the titles of the items and says which features are sensitive. items limits the view to the first
    items; None shows all of them.
    """
    shown = sorted(explanation["items"], key=lambda item: item["position"])[:items]
    body: list[RenderableType] = [line for item in shown for line in _item(item, bundle)]
    if not body:
        body = ["The slate has no items."]
    title = f"{explanation['model_version']} · policy {explanation['policy']} · {explanation['locale']}"
    return Panel(Group(*body), title=title, subtitle=explanation["request_id"])


def feature_contributions(evidence: Evidence, bundle: Bundle, limit: int | None = None) -> str:
    """List the features of the evidence with their contributions, without the features that the bundle calls sensitive.

    limit is the largest number of features to list; the text is empty where the evidence names no feature to list.
    """
    sensitive = {feature.name for feature in bundle.features if feature.is_sensitive}
    named = [each for each in evidence["features"] if each["name"] not in sensitive]
    return ", ".join(f"{each['display_name']} {each['contribution']:+.3f}" for each in named[:limit])


def _item(item: ItemExplanation, bundle: Bundle) -> list[RenderableType]:
    index = int(bundle.catalog.index([item["item_id"]])[0])
    name = bundle.catalog.titles[index - 1] if index else item["item_id"]
    head = Text.assemble(
        f"{item['position']:>2}. ",
        (name, "bold"),
        "  ",
        (f"{item['type']} · {item['status']}", _COLOURS[item["status"]]),
    )
    lines: list[RenderableType] = [Text(item["text"])]
    if item["basis_text"]:
        lines.append(Text(item["basis_text"]))
    features = "" if item["detail"] is not None else feature_contributions(item["evidence"], bundle)
    lines += [Text(line, style="dim") for line in _evidence_lines(item["evidence"], features)]
    if item["detail"] is not None:
        lines += ledger(item["detail"])
    return [head, *(Padding(line, (0, 0, 0, 4)) for line in lines)]


def _rank(cited: Citation) -> str:
    before, after = cited["rank"], cited["rank_without"]
    return f"the rank stays {before}" if before == after else f"the rank goes from {before} to {after}"


def _evidence_lines(evidence: Evidence, features: str) -> list[str]:
    lines = [
        f"event {cited['event']} “{cited['title']}”: without it the score drops by {cited['score_drop']:.3f}, "
        f"{_rank(cited)} (attention {cited['attention']:.2f})"
        for cited in evidence["history"]
    ]
    if features:
        lines.append(f"features: {features}")
    shares = {
        "personal share": evidence["personal_share"],
        "category match": evidence["category_match"],
        "residual": evidence["residual"],
    }
    known = [f"{name} {value:.3g}" for name, value in shares.items() if value is not None]
    return [*lines, " · ".join(known)] if known else lines
