"""Moments that many users share, found in impressions that a recommender served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from models.bundle import Bundle
from models.exemplars.index import Exemplars
from models.exemplars.prototypes import K_ANONYMOUS
from models.manifest import Engagement
from schemas.json_form import to_json
from stream.cli import app
from tests.bundles import tiny_bundle, tiny_impression

WORDS = (Engagement("play"), Engagement("save", "positive"), Engagement("hide", "negative"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose engagements are its owner's own words; the graph has indices for two more."""
    spare = (Engagement("rate"), Engagement("share"))
    return tiny_bundle(tmp_path / "bundle", engagements=(*WORDS, *spare))


def slate(bundle: Bundle, user: int, items: list[str], *, last: str = "play", hour: int = 1) -> dict[str, Any]:
    """A slate of a user with these items as session, none of which has a time; ``last``: engagement of the newest."""
    words = ["play"] * (len(items) - 1) + [last]
    return tiny_impression(bundle, items=2) | {
        "user_id_hash": f"{user:016x}",
        "timestamp_ms": 1_760_000_000_000 + hour * 3_600_000,
        "session": [
            {"item_id": item, "engagement": word, "timestamp_ms": None} for item, word in zip(items, words, strict=True)
        ],
    }


def exemplars(folder: Path, slates: list[dict[str, Any]]) -> tuple[int, str]:
    file = folder.parent / "served.jsonl"
    file.write_text("".join(f"{to_json(each)}\n" for each in slates))
    done = CliRunner().invoke(app, ["models", "exemplars", str(folder), "--impressions", str(file)])
    return done.exit_code, f"{' '.join(done.output.split())} {done.exception or ''}"


def test_the_newest_slate_of_a_user_says_what_was_watched_after_the_slates_before(folder: Path) -> None:
    bundle, users = Bundle.load(folder), range(K_ANONYMOUS)
    before = [slate(bundle, user, ["s001", "s002", "s003"]) for user in users]
    after = [slate(bundle, user, ["s001", "s002", "s003", "s009"], hour=2) for user in users]
    code, output = exemplars(folder, [*after, *before])
    assert code == 0, output
    assert "wrote 1 moments" in output
    found = Exemplars.load(Bundle.load(folder))
    assert found is not None
    assert bundle.catalog.item_ids[found.next_item[0] - 1] == "s009"
    assert (found.users.tolist(), found.watched.tolist()) == ([K_ANONYMOUS], [K_ANONYMOUS])


def test_events_that_the_bundle_does_not_know_are_no_part_of_a_moment(folder: Path) -> None:
    bundle = Bundle.load(folder)
    known = [slate(bundle, user, ["s001", "s002", "s003", "s009"]) for user in range(K_ANONYMOUS - 1)]
    other = [slate(bundle, K_ANONYMOUS, ["s001", "elsewhere", "s002", "s003", "s009"])]
    code, output = exemplars(folder, known + other)
    assert code == 0, output
    found = Exemplars.load(Bundle.load(folder))
    assert found is not None
    assert np.array_equal(found.watched, [K_ANONYMOUS])


@pytest.mark.parametrize(
    ("users", "last"), [(K_ANONYMOUS - 1, "play"), (K_ANONYMOUS, "hide")], ids=["too few users", "a negative role"]
)
def test_what_is_not_shared_by_enough_users_leaves_the_bundle_as_it_is(folder: Path, users: int, last: str) -> None:
    bundle = Bundle.load(folder)
    code, output = exemplars(
        folder, [slate(bundle, user, ["s001", "s002", "s003", "s009"], last=last) for user in range(users)]
    )
    assert code != 0
    assert "is left as it is" in output
    assert Exemplars.load(Bundle.load(folder)) is None


@pytest.mark.parametrize(
    ("command", "says"),
    [(("exemplars", "--simulated", "--impressions", "-"), "needs one source"), (("selector",), "users' answers")],
)
def test_a_source_that_cannot_give_what_is_needed_is_refused(folder: Path, command: tuple[str, ...], says: str) -> None:
    name, *options = command
    done = CliRunner().invoke(app, ["models", name, str(folder), *options])
    assert done.exit_code != 0
    assert says in str(done.exception)
