"""``whyrec explain``: one event from a file or from standard input, and its explanation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from models.catalog import Catalog
    from schemas.events import Citation, Evidence, Explanation, ItemExplanation

_COLOURS = {"verified": "green", "factual": "cyan", "generic": "white", "model_mismatch": "yellow"}


def explain(
    file: str = typer.Argument("-", help="An impression event as JSON (or in the Confluent wire format); - is stdin."),
    bundle: Annotated[Path | None, typer.Option(help="The model bundle that ranked the slate.")] = None,
    policy: str | None = typer.Option(None, help="evidence, or attention (the industry's rules)."),
    json: bool = typer.Option(False, "--json", help="Print the explanation event as JSON."),
) -> None:
    """Explain every item of one slate.

    Example: whyrec explain impression.json --policy evidence
    """
    from schemas.codec import Codec, to_json
    from stream.explain.pipeline import Explainer
    from stream.settings import Settings

    settings = Settings()
    explainer = Explainer.load(bundle or settings.bundle_dir, policy or settings.policy)
    [explanation] = explainer.explain([Codec().decode("impression", _read(file))])
    if json:
        typer.echo(to_json(explanation))
    else:
        _show(cast("Explanation", explanation), explainer.bundle.catalog)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}; name a file that holds one impression event") from error


def _show(explanation: Explanation, catalog: Catalog) -> None:
    from rich.console import Console, Group
    from rich.panel import Panel

    items = sorted(explanation["items"], key=lambda item: item["position"])
    body: list[RenderableType] = [line for item in items for line in _item(item, catalog)]
    if not body:
        body = ["The slate has no items."]
    title = f"{explanation['model_version']} · policy {explanation['policy']} · {explanation['locale']}"
    Console().print(Panel(Group(*body), title=title, subtitle=explanation["request_id"]))


def _item(item: ItemExplanation, catalog: Catalog) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    index = int(catalog.index([item["item_id"]])[0])
    name = catalog.titles[index - 1] if index else item["item_id"]
    head = Text.assemble(
        f"{item['position']:>2}. ",
        (name, "bold"),
        "  ",
        (f"{item['type']} · {item['status']}", _COLOURS[item["status"]]),
    )
    lines = [Text(item["text"]), *(Text(line, style="dim") for line in _evidence_lines(item["evidence"]))]
    return [head, *(Padding(line, (0, 0, 0, 4)) for line in lines)]


def _rank(cited: Citation) -> str:
    before, after = cited["rank"], cited["rank_without"]
    return f"the rank stays {before}" if before == after else f"the rank goes from {before} to {after}"


def _evidence_lines(evidence: Evidence) -> list[str]:
    lines = [
        f"event {cited['event']} “{cited['title']}”: without it the score falls by {cited['score_drop']:.3f}, "
        f"{_rank(cited)} (attention {cited['attention']:.2f})"
        for cited in evidence["history"]
    ]
    if evidence["features"]:
        features = ", ".join(f"{each['display_name']} {each['contribution']:+.3f}" for each in evidence["features"])
        lines.append(f"features: {features}")
    shares = {
        "personal share": evidence["personal_share"],
        "category match": evidence["category_match"],
        "residual": evidence["residual"],
    }
    told = [f"{name} {value:.3g}" for name, value in shares.items() if value is not None]
    return [*lines, " · ".join(told)] if told else lines
