"""MovieLens 100K is read in both layouts; most tests use small invented files, one uses the data set if present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.movielens import GENRES, UnreadableMovieLens, load
from models.data.sessions import COMPLETE, LIKE, SKIP, VIEW, Sessions, user_hash

REAL = Path(__file__).parents[3] / "shared" / "data" / "movielens-100k"

# Invented films: number, title, year, genres.
FILMS = [
    (1, "Quiet Harbour, The", "1991", ["Drama", "Romance"]),
    (3, "Étoile sans nom, L'", "1994", ["Drama"]),
    (7, "Seven Kites", "1989", ["Action", "Drama"]),
    (9, "Nobody's Name", "", []),
    (12, "Lanterns", "1997", ["Action"]),
]
# User, film, rating, time in seconds; two events of user 5 have the same second.
RATINGS = [
    (5, 7, 5, 880_000_300),
    (5, 1, 4, 880_000_100),
    (8, 3, 2, 880_000_050),
    (5, 12, 3, 880_000_200),
    (5, 9, 1, 880_000_200),
    (5, 3, 2, 880_000_000),
    *[(8, film, 4, 880_000_060 + film) for film in (1, 7, 9, 12)],
]


def write_grouplens(folder: Path) -> Path:
    names = GENRES.split(",")
    lines = []
    for number, title, year, genres in FILMS:
        shown = f"{title} ({year})" if year else title
        flags = "|".join("1" if name in genres else "0" for name in names)
        lines.append(f"{number}|{shown}|01-Jan-{year}||http://example.org/{number}|{flags}")
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATINGS))
    return folder


def write_recbole(folder: Path) -> Path:
    films = [f"{number}\t{title}\t{year or 'V'}\t{' '.join(genres)}" for number, title, year, genres in FILMS]
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / "tiny.item").write_text("\n".join([header, *films]) + "\n", encoding="utf-8")
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *("\t".join(map(str, r)) for r in RATINGS)]
    (folder / "tiny.inter").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(params=[write_grouplens, write_recbole], ids=["GroupLens", "RecBole"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder: Path = request.param(tmp_path)
    return folder


def test_both_layouts_give_the_same_histories(tiny: Path) -> None:
    sessions = load(tiny)
    catalog = sessions.catalog

    assert catalog.item_ids == ("ml-1", "ml-3", "ml-7", "ml-9", "ml-12")
    assert catalog.titles == (
        "The Quiet Harbour (1991)",
        "L'Étoile sans nom (1994)",
        "Seven Kites (1989)",
        "Nobody's Name",
        "Lanterns (1997)",
    )
    # Drama is in three films, Action in two, Romance in one: the rarest is chosen.
    assert catalog.categories == ("Romance", "Drama", "Action", "unknown", "Action")
    assert sessions.user_id_hash.tolist() == [user_hash("movielens-100k/5"), user_hash("movielens-100k/8")]
    first = slice(0, sessions.offsets[1])
    assert [catalog.item_ids[index - 1] for index in sessions.item[first]] == ["ml-3", "ml-1", "ml-12", "ml-9", "ml-7"]
    assert sessions.engagement[first].tolist() == [SKIP, COMPLETE, VIEW, SKIP, LIKE]
    assert sessions.timestamp_ms[0] == 880_000_000_000
    assert (sessions.cause == -1).all()
    assert len(catalog.popularity) == 6
    assert (catalog.popularity[1:] == 50).all(), "every film was rated twice"


def test_the_last_window_of_a_user_ends_with_the_newest_rating(tmp_path: Path) -> None:
    write_grouplens(tmp_path)
    films = [1, 3, 7, 9, 12]
    rows = [(1, films[place % 5], 3, 1000 + place) for place in range(23)]
    (tmp_path / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))

    def seconds(sessions: Sessions) -> list[list[int]]:
        times = (sessions.timestamp_ms // 1000).tolist()
        return [
            [times[low], times[high - 1]] for low, high in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
        ]

    assert seconds(load(tmp_path, window=9)) == [[1000, 1004], [1005, 1013], [1014, 1022]]
    assert seconds(load(tmp_path, window=10)) == [[1003, 1012], [1013, 1022]], "a window of three ratings is left out"
    assert seconds(load(tmp_path, window=9, stride=7)) == [[1000, 1008], [1007, 1015], [1014, 1022]]


def test_the_file_about_users_is_never_opened(tiny: Path) -> None:
    # Opening a folder as a file would fail.
    (tiny / "u.user").mkdir()
    (tiny / "tiny.user").mkdir()

    assert len(load(tiny)) == 2


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMovieLens, match=r"u\.data and u\.item.*unpack"):
        load(tmp_path / "nowhere")
    write_grouplens(tmp_path)
    (tmp_path / "u.item").unlink()
    with pytest.raises(UnreadableMovieLens, match=r"expected u\.item beside"):
        load(tmp_path)


def test_a_damaged_line_is_named(tiny: Path) -> None:
    ratings = next(path for path in (tiny / "u.data", tiny / "tiny.inter") if path.exists())
    ratings.write_text(ratings.read_text() + "5\t1\n")
    last = len(ratings.read_text().splitlines())

    with pytest.raises(UnreadableMovieLens, match=rf"line {last}: expected user, film, rating and time"):
        load(tiny)


@pytest.mark.parametrize(
    ("row", "message"), [("5\t99\t3\t880000000", "film 99"), ("5\t1\t7\t880000000", "ratings from 1 to 5")]
)
def test_invalid_ratings_are_rejected(tiny: Path, row: str, message: str) -> None:
    ratings = next(path for path in (tiny / "u.data", tiny / "tiny.inter") if path.exists())
    ratings.write_text(ratings.read_text() + row + "\n")

    with pytest.raises(UnreadableMovieLens, match=message):
        load(tiny)


def test_other_column_names_are_rejected(tmp_path: Path) -> None:
    write_recbole(tmp_path)
    inter = tmp_path / "tiny.inter"
    inter.write_text(inter.read_text().replace("timestamp:float", "when:float"))

    with pytest.raises(UnreadableMovieLens, match="timestamp"):
        load(tmp_path)


def test_the_data_set_is_read_completely() -> None:
    if not REAL.exists():
        pytest.skip(f"MovieLens 100K is not at {REAL}")
    sessions = load(REAL, window=1000)

    assert len(sessions) == 943
    assert len(sessions.item) == 100_000
    assert len(sessions.catalog) == 1682
    assert sessions.lengths.min() == 20
    # Published shares: ratings 1 and 2 together 17.5 %, 3 27.1 %, 4 34.2 %, 5 21.2 %.
    share = np.bincount(sessions.engagement, minlength=6) / 100_000
    assert share.round(3).tolist() == [0, 0.271, 0.212, 0.342, 0, 0.175]
    assert not [title for title in sessions.catalog.titles if title.split(" (")[0].endswith(", The")]
