"""What came of a demonstration: the figures that must agree, and what a person would want to see of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from schemas.events import EXPLANATION_TYPES, Explanation, ItemExplanation
from stream.archive.objects import Store
from stream.archive.rows import segment


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a demonstration, in the shape of its JSON."""

    events_in: int
    items_in: int
    items_explained: int
    rows_archived: int
    dead_letters: int
    latency_ms: dict[str, float]
    types: dict[str, int]
    archive: str

    def faults(self) -> list[str]:
        """Say what does not add up; nothing, if all does."""
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


def print_samples(console: Console, samples: Mapping[str, Sequence[Explanation]], titles: Mapping[str, str]) -> None:
    """Print three explanations in words, of different types where there are some, each with its evidence."""
    console.print("\n[bold]Three of the explanations[/]")
    for number, (item, explanation) in enumerate(_choose(samples), start=1):
        title = titles.get(item["item_id"], item["item_id"])
        console.print(f"\n{number}. [bold]{title}[/], position {item['position']}: {item['text']}", highlight=False)
        console.print(f"   {item['type']}, {item['status']} · model {explanation['model_version']}", style="dim")
        for line in _evidence(item):
            console.print(f"   {line}", highlight=False)


def print_types(console: Console, types: Mapping[str, int]) -> None:
    """Print how the explanation types are distributed."""
    table = Table("explanation type", "items", "share", title="What was said", title_justify="left")
    total = max(1, sum(types.values()))
    for kind, count in types.items():
        table.add_row(kind, f"{count:,}", f"{count / total:.1%}")
    console.print()
    console.print(table)


def print_query(console: Console, store: Store, archive: str, objects: Sequence[str]) -> None:
    """Run one query over the archived Parquet with DuckDB and print it with its answer."""
    import duckdb
    import pyarrow as pa

    console.print(f"\n[bold]The archive[/] lies in {archive}", highlight=False, soft_wrap=True)
    local = not archive.startswith("s3://")
    source = f"read_parquet('{archive}/date=*/region=*/*.parquet', hive_partitioning = true)" if local else "archive"
    query = (
        "SELECT region, count(DISTINCT request_id) AS slates, count(*) AS rows,\n"
        "       round(avg((status = 'verified')::INT), 3) AS verified\n"
        f"FROM {source}\n"
        "GROUP BY region ORDER BY rows DESC LIMIT 5"
    )
    with duckdb.connect() as connection:
        if not local:
            rows = pa.concat_tables([segment.read(store.get(key)) for key in objects])
            connection.register("archive", rows)
        answer = connection.execute(query)
        columns = [column[0] for column in answer.description]
        found = answer.fetchall()
    console.print(f"\n[bold]DuckDB[/]\n{query}", highlight=False, markup=True, soft_wrap=True)
    table = Table(*columns)
    for row in found:
        table.add_row(*(str(value) for value in row))
    console.print(table)


def _choose(samples: Mapping[str, Sequence[Explanation]]) -> Iterator[tuple[ItemExplanation, Explanation]]:
    """Yield three items: one of each type, in the types' order, then more of those there are; telling ones first."""
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


def _evidence(item: ItemExplanation) -> Iterator[str]:
    evidence = item["evidence"]
    for cited in evidence["history"]:
        moved = (
            f"without it {_ordinal(cited['rank_without'])} instead of {_ordinal(cited['rank'])}"
            if cited["rank_without"] != cited["rank"]
            else f"{_ordinal(cited['rank'])} either way"
        )
        cost = f"deleting it costs the item {cited['score_drop']:.3f} of its score"
        yield f"- because of {cited['title']}: {cost}; {moved}"
    top = evidence["features"][:3]
    if top:
        yield "- strongest features: " + ", ".join(
            f"{feature['display_name']} {feature['contribution']:+.3f}" for feature in top
        )
    facts: list[tuple[str, Any]] = [
        ("personal share", evidence["personal_share"]),
        ("of the history in this category", evidence["category_match"]),
    ]
    told = [f"{name} {value:.0%}" for name, value in facts if value is not None]
    if told:
        yield "- " + ", ".join(told)


def _ordinal(rank: int) -> str:
    suffix = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{suffix}"
