from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.catalog_files import read_items
from models.errors import BundleError

ROWS: list[dict[str, Any]] = [
    {"item_id": "7", "title": "Alien, again", "category": ["Horror", "Space"], "popularity": 12},
    {"item_id": "007", "title": "Solaris", "category": ["Space"], "popularity": 0},
    {"item_id": "x", "title": "“Stalker”", "category": ["Drama"], "popularity": 0},
    {"item_id": "y", "title": "Null", "category": ["Drama"], "popularity": 3},
]


def written(folder: Path, suffix: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"items.{suffix}"
    if suffix == "csv":
        lines = [",".join(rows[0])]
        for row in rows:
            cells = {**row, "title": f'"{row["title"]}"', "category": "|".join(row["category"])}
            lines.append(",".join(str(cell) for cell in cells.values()))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_form_gives_the_same_catalogue(suffix: str, tmp_path: Path) -> None:
    catalog = read_items(written(tmp_path, suffix))
    assert catalog.item_ids == ("7", "007", "x", "y")
    assert catalog.titles == ("Alien, again", "Solaris", "“Stalker”", "Null")
    assert catalog.categories == ("Horror", "Space", "Drama", "Drama")
    assert dict(catalog.more_categories) == {1: ("Space",)}
    np.testing.assert_array_equal(catalog.popularity, np.array([0, 100, 25, 25, 75], dtype=np.float32))


def test_percentiles_stay_what_they_are(tmp_path: Path) -> None:
    rows = [row | {"popularity": value} for row, value in zip(ROWS, (50.0, 25.0, 100.0, 75.0), strict=True)]
    np.testing.assert_array_equal(read_items(written(tmp_path, "csv", rows)).popularity[1:], [50, 25, 100, 75])


def test_without_popularity_no_item_is_popular(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "popularity"} for row in ROWS]
    assert not read_items(written(tmp_path, "jsonl", rows)).popularity.any()


def test_item_index_gives_the_order(tmp_path: Path) -> None:
    rows = [row | {"item_index": index} for row, index in zip(ROWS, (3, 1, 4, 2), strict=True)]
    catalog = read_items(written(tmp_path, "parquet", rows))
    assert catalog.item_ids == ("007", "y", "7", "x")
    assert dict(catalog.more_categories) == {3: ("Space",)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": ""}, "a title in every row, got none in row 2"),
        ({"category": []}, "a category in every row, got none in row 2"),
        ({"item_id": "7"}, "each item_id once, got 7 twice"),
        ({"popularity": None}, "a popularity in every row, got none in row 2"),
        ({"item_index": 9}, "item_index to number the 4 items from 1 to 4, got numbers from 1 to 9"),
    ],
)
def test_what_no_item_can_have_is_refused_with_its_row(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [{"item_index": index} | row for index, row in enumerate(ROWS, start=1)]
    rows[1] = rows[1] | change
    with pytest.raises(BundleError, match=message):
        read_items(written(tmp_path, "jsonl", rows))


def test_a_column_that_is_missing_and_a_form_that_is_unknown_are_named(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title,category\n1,a,b\n")
    with pytest.raises(BundleError, match="got id, title, category: add or rename item_id"):
        read_items(tmp_path / "items.csv")
    with pytest.raises(BundleError, match=r"ends in \.csv, \.parquet, \.jsonl"):
        read_items(tmp_path / "items.xlsx")
    with pytest.raises(BundleError, match=r"a readable \.csv file"):
        read_items(tmp_path / "absent.csv")
