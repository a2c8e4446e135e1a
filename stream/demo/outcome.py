"""The outcome of a demonstration: figures that must agree, sample explanations, and a query over the archive."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from models.bundle import Bundle
from schemas.events import EXPLANATION_TYPES, Explanation, ItemExplanation
from stream.archive.objects import Store
from stream.archive.rows import segment
from stream.terminal.panel import feature_contributions


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a demonstration; the fields are the keys of its JSON document."""

    events_in: int
    items_in: int
    items_explained: int
    rows_archived: int
    dead_letters: int
    latency_ms: dict[str, float]
    types: dict[str, int]
    archive: str

    def faults(self) -> list[str]:
        """Describe every disagreement between the figures; an empty list if the figures agree."""
        found = []
        if self.items_explained != self.items_in:
            found.append(f"{self.items_in:,} items went in, {self.items_explained:,} were explained")
        if self.rows_archived != self.items_explained:
            found.append(f"{self.items_explained:,} items were explained, {self.rows_archived:,} rows are archived")
        if self.dead_letters:
            found.append(f"{self.dead_letters:,} impressions went to the dead letters; expected none")
        if self.events_in == 0:
            found.append("nothing was sent")
        return found

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(asdict(self), indent=2)


def print_samples(console: Console, samples: Mapping[str, Sequence[Explanation]], bundle: Bundle) -> None:
    """Print three explanations with their evidence, of different types where the samples have several."""
    titles = dict(zip(bundle.catalog.item_ids, bundle.catalog.titles, strict=True))
    console.print("\n[bold]Three of the explanations[/]")
    for number, (item, explanation) in enumerate(_choose(samples), start=1):
        evidence = Table.grid(padding=(0, 1))
        for line in (
            f"{item['type']}, {item['status']}, position {item['position']}, {explanation['model_version']}",
            *_evidence(item, bundle),
        ):
            evidence.add_row("-", Text(line, style="dim"))
        body = Group(Text(titles.get(item["item_id"], item["item_id"]), "bold"), Text(item["text"]), evidence)
        sample = Table.grid(padding=(0, 1))
        sample.add_row(f"{number}.", body)
        console.print()
        console.print(sample)


def print_types(console: Console, types: Mapping[str, int]) -> None:
    """Print the number and share of the items of each explanation type."""
    table = Table("explanation type", "items", "share", title="Explanation types", title_justify="left")
    total = max(1, sum(types.values()))
    for kind, count in types.items():
        table.add_row(kind, f"{count:,}", f"{count / total:.1%}")
    console.print()
    console.print(table)


def print_query(console: Console, store: Store, archive: str, objects: Sequence[str]) -> None:
    """Run one query over the archived Parquet with DuckDB, and print the query and its answer."""
    import duckdb
    import pyarrow as pa

    local = not archive.startswith("s3://")
    place = _relative(archive) if local else archive
    console.print(f"\n[bold]The archive[/] is in {place}", highlight=False, soft_wrap=True)
    objects_pattern = f"read_parquet('{place}/*/*/*.parquet',\n                  hive_partitioning = true)"
    query = (
        "SELECT region, count(DISTINCT request_id) AS slates, count(*) AS rows,\n"
        "       round(avg((status = 'verified')::INT), 3) AS verified\n"
        f"FROM {objects_pattern if local else 'archive'}\n"
        "GROUP BY region ORDER BY rows DESC LIMIT 5"
    )
    with duckdb.connect() as connection:
        if not local:
            rows = pa.concat_tables([segment.read(store.get(key)) for key in objects])
            connection.register("archive", rows)
        answer = connection.execute(query)
        columns = [column[0] for column in answer.description]
        found = answer.fetchall()
    console.print("\nOne query over it, with DuckDB:\n")
    console.print(query, highlight=False, markup=False, soft_wrap=True, style="dim")
    table = Table(*columns)
    for row in found:
        table.add_row(*(str(value) for value in row))
    console.print(table)


def _relative(path: str) -> str:
    """Return a path below the current folder relative to it, and any other path as it is."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _choose(samples: Mapping[str, Sequence[Explanation]]) -> Iterator[tuple[ItemExplanation, Explanation]]:
    """Yield three items: one of each type in the order of the types, then further ones.

    Within a type, English texts come first, then items whose rank changes without a cited event.
    """
    by_type = {
        kind: sorted(
            ((item, each) for each in kept for item in each["items"] if item["type"] == kind),
            key=lambda pair: (not pair[1]["locale"].startswith("en"), not _moved(pair[0]), pair[0]["position"]),
        )
        for kind, kept in samples.items()
    }
    rounds = max((len(each) for each in by_type.values()), default=0)
    candidates = (
        by_type[kind][number]
        for number in range(rounds)
        for kind in EXPLANATION_TYPES
        if number < len(by_type.get(kind, []))
    )
    yield from (pair for pair, _ in zip(candidates, range(3), strict=False))


def _moved(item: ItemExplanation) -> bool:
    return any(cited["rank_without"] != cited["rank"] for cited in item["evidence"]["history"])


def _evidence(item: ItemExplanation, bundle: Bundle) -> Iterator[str]:
    evidence = item["evidence"]
    for cited in evidence["history"]:
        rank = (
            f"{_ordinal(cited['rank_without'])} instead of {_ordinal(cited['rank'])}"
            if cited["rank_without"] != cited["rank"]
            else f"{_ordinal(cited['rank'])} with it and without it"
        )
        yield f"deleting “{cited['title']}” lowers the score by {cited['score_drop']:.3f}; rank {rank}"
    if features := feature_contributions(evidence, bundle, limit=3):
        yield f"strongest features: {features}"
    shares: list[tuple[str, float | None]] = [
        ("personal share", evidence["personal_share"]),
        ("share of the history in this category", evidence["category_match"]),
    ]
    if known := [f"{name} {value:.0%}" for name, value in shares if value is not None]:
        yield ", ".join(known)


def _ordinal(rank: int) -> str:
    suffix = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{suffix}"
