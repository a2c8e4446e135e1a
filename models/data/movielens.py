"""MovieLens 100K as interaction histories, read from a local copy.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015; download from
https://grouplens.org/datasets/movielens/100k/. Two layouts are supported: GroupLens' own (`u.data`, `u.item`) and
RecBole's atomic files (`*.inter`, `*.item`). The file about users (age, gender, occupation) is never opened.

Ratings are mapped to engagements: 5 to like, 4 to complete, 3 to view, 1 and 2 to skip; nothing is mapped to share. The
category of a film with several genres is the rarest of them, the most specific. Causes are unknown (`cause` = -1).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.catalog import Catalog
from models.data.sessions import COMPLETE, LIKE, NO_CAUSE, SKIP, VIEW, Sessions, user_hash
from schemas.errors import WhyrecError

WINDOW = 50
MIN_EVENTS = 5
# The site was run by a university in Minnesota. The file with the users' postcodes is not read.
REGION, LOCALE = "US", "en-US"
ENGAGEMENT_OF_RATING = np.array([0, SKIP, SKIP, VIEW, COMPLETE, LIKE], dtype=np.int8)
GENRES = (
    "unknown,Action,Adventure,Animation,Children's,Comedy,Crime,Documentary,Drama,Fantasy,Film-Noir,Horror,Musical,"
    "Mystery,Romance,Sci-Fi,Thriller,War,Western"
)
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_TRAILING_ARTICLE = re.compile(r"^(.*), (The|A|An|Le|La|Les|L'|Il|Lo|Das|Der|Die|El|Los|Las|Un|Une)((?: \(.*\))?)$")


class UnreadableMovieLens(WhyrecError):
    """The folder is no copy of MovieLens 100K, or the copy is damaged."""


@dataclass(frozen=True)
class _Film:
    title: str
    genres: tuple[str, ...]


def load(directory: Path, *, window: int = WINDOW, stride: int | None = None) -> Sessions:
    """Read the ratings as histories of up to `window` events; the histories of a user are in order of time.

    The last history of a user ends with the newest rating; the others end `stride` ratings earlier each. By default
    the stride is the window, so that histories do not overlap. Histories of fewer than 5 events are left out.

    Raises:
        UnreadableMovieLens: files are missing or do not have the expected columns; names the file and the line.

    """
    directory = Path(directory)
    if (directory / "u.data").exists():
        films = _grouplens_films(_existing(directory / "u.item"))
        ratings = _numbers(directory / "u.data", header=False)
    else:
        inter = sorted(directory.glob("*.inter")) if directory.is_dir() else []
        if len(inter) != 1:
            raise UnreadableMovieLens(
                f"{directory}: expected MovieLens 100K (u.data and u.item, or one *.inter file and its *.item), got "
                f"{len(inter)} *.inter files and no u.data: unpack ml-100k.zip from "
                "https://grouplens.org/datasets/movielens/100k/ and give the path of the folder with u.data"
            )
        films = _recbole_films(_existing(inter[0].with_suffix(".item")))
        ratings = _numbers(inter[0], header=True)
    return _histories(films, ratings, window, window if stride is None else stride)


def _histories(films: dict[int, _Film], ratings: NDArray[np.int64], window: int, stride: int) -> Sessions:
    numbers = np.array(sorted(films), dtype=np.int64)
    if not np.isin(ratings[:, 1], numbers).all():
        unknown = ratings[~np.isin(ratings[:, 1], numbers), 1][0]
        raise UnreadableMovieLens(
            f"expected every rated film in the file of films, got a rating of film {unknown}, which is missing there: "
            "use two files of the same download"
        )
    if not np.isin(ratings[:, 2], np.arange(1, 6)).all():
        raise UnreadableMovieLens("expected ratings from 1 to 5, got others: use a copy of MovieLens 100K")
    # Many ratings have the same second; a stable sort keeps the order of the file among them.
    ratings = ratings[np.lexsort((ratings[:, 3], ratings[:, 0]))]
    users, starts, counts = np.unique(ratings[:, 0], return_index=True, return_counts=True)
    bounds = [
        (owner, int(start) + max(0, end - window), int(start) + end)
        for owner, (start, count) in enumerate(zip(starts, counts, strict=True))
        for end in sorted(range(int(count), MIN_EVENTS - 1, -stride))
    ]
    events = np.concatenate([np.arange(low, high) for _, low, high in bounds] or [np.zeros(0, dtype=np.int64)])
    names = np.array([user_hash(f"movielens-100k/{user}") for user in users] or [""])
    return Sessions(
        item=(np.searchsorted(numbers, ratings[events, 1]) + 1).astype(np.int32),
        engagement=ENGAGEMENT_OF_RATING[ratings[events, 2]],
        timestamp_ms=ratings[events, 3] * 1000,
        cause=np.full(len(events), NO_CAUSE, dtype=np.int32),
        offsets=np.cumsum([0, *(high - low for _, low, high in bounds)]).astype(np.int64),
        user_id_hash=names[[owner for owner, _, _ in bounds]],
        region=np.full(len(bounds), REGION),
        locale=np.full(len(bounds), LOCALE),
        catalog=_catalog(films, numbers, ratings[:, 1]),
    )


def _catalog(films: dict[int, _Film], numbers: NDArray[np.int64], rated: NDArray[np.int64]) -> Catalog:
    frequency = Counter(genre for film in films.values() for genre in film.genres)
    plays = np.bincount(np.searchsorted(numbers, rated), minlength=len(numbers))
    ordered = np.sort(plays)
    below = np.searchsorted(ordered, plays, side="left") + np.searchsorted(ordered, plays, side="right")
    popularity = np.concatenate([[0.0], 50.0 * below / len(numbers)]).astype(np.float32)
    return Catalog(
        item_ids=tuple(f"ml-{number}" for number in numbers),
        titles=tuple(films[int(number)].title for number in numbers),
        categories=tuple(
            min(films[int(number)].genres or ("unknown",), key=lambda genre: (frequency[genre], genre))
            for number in numbers
        ),
        popularity=popularity,
    )


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UnreadableMovieLens(
            f"expected {path.name} beside the ratings in {path.parent}, got no such file: copy the file there"
        )
    return path


def _numbers(path: Path, *, header: bool) -> NDArray[np.int64]:
    """Read ratings, int64 [n, 4]: user, film, rating, time in seconds since 1970."""
    lines = path.read_text(encoding="utf-8").splitlines()
    columns = [0, 1, 2, 3]
    if header:
        names = [name.split(":")[0] for name in lines[0].split("\t")] if lines else []
        wanted = ["user_id", "item_id", "rating", "timestamp"]
        if not set(wanted) <= set(names):
            raise UnreadableMovieLens(f"{path.name}, line 1: expected the columns {wanted}, got {names}")
        columns = [names.index(name) for name in wanted]
    rows = []
    for number, line in enumerate(lines[header:], start=1 + header):
        fields = line.split("\t")
        try:
            rows.append([int(float(fields[column])) for column in columns])
        except (IndexError, ValueError) as error:
            raise UnreadableMovieLens(
                f"{path.name}, line {number}: expected user, film, rating and time, separated by tabs, got {line!r}"
            ) from error
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _grouplens_films(path: Path) -> dict[int, _Film]:
    genres = GENRES.split(",")
    films = {}
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1):
        fields = line.split("|")
        flags = fields[5:]
        if len(flags) != len(genres) or not fields[0].isdigit():
            raise UnreadableMovieLens(
                f"{path.name}, line {number}: expected number, title, dates, address and {len(genres)} genres, "
                f"separated by |, got {len(fields)} fields"
            )
        year = _YEAR.search(fields[1])
        chosen = tuple(genre for genre, flag in zip(genres, flags, strict=True) if flag == "1")
        films[int(fields[0])] = _Film(_readable(_YEAR.sub("", fields[1]), year[1] if year else ""), chosen)
    return films


def _recbole_films(path: Path) -> dict[int, _Film]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = {name.split(":")[0]: name for name in reader.fieldnames or ()}
        wanted = ("item_id", "movie_title", "release_year", "class")
        if not set(wanted) <= set(columns):
            raise UnreadableMovieLens(f"{path.name}, line 1: expected the columns {list(wanted)}, got {list(columns)}")
        films = {}
        for number, row in enumerate(reader, start=2):
            values = [row[columns[name]] for name in wanted]
            if None in values or not values[0].isdigit():
                raise UnreadableMovieLens(f"{path.name}, line {number}: expected {len(wanted)} fields, got {row}")
            films[int(values[0])] = _Film(_readable(values[1], values[2]), tuple(values[3].split()))
    return films


def _readable(title: str, year: str) -> str:
    """Format "Quiet Harbour, The" and "1949" as "The Quiet Harbour (1949)"."""
    match = _TRAILING_ARTICLE.match(title)
    if match:
        article = match[2] if match[2].endswith("'") else f"{match[2]} "
        title = f"{article}{match[1]}{match[3]}"
    return f"{title} ({year})" if year.isdigit() else title
