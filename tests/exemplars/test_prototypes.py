"""Prototypes satisfy k-anonymity: nothing rests on fewer than k users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.bundle import Bundle
from models.data.sessions import COMPLETE, SKIP, Sessions, user_hash
from models.errors import BundleError
from models.exemplars.index import Exemplars, write
from models.exemplars.prototypes import K_ANONYMOUS, Prototypes, prototypes
from tests.bundles import tiny_bundle, tiny_catalog

D = 16


def encode(items: NDArray[np.int64], _engagements: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vector of a moment is that of its newest item, so that moments after the same item form one cluster."""
    table = np.random.default_rng(0).standard_normal((61, D)).astype(np.float32)
    return table[items[:, -1]]


def histories(rows: list[tuple[str, list[int], int]]) -> Sessions:
    """Make histories from user names, items, and the engagement of each last event."""
    lengths = np.array([len(items) for _, items, _ in rows])
    engagement = np.full(lengths.sum(), COMPLETE, dtype=np.int8)
    engagement[np.cumsum(lengths) - 1] = [last for _, _, last in rows]
    names = np.array([user_hash(name) for name, _, _ in rows])
    same = np.array(["GB"] * len(rows))
    return Sessions(
        item=np.concatenate([items for _, items, _ in rows]).astype(np.int32),
        engagement=engagement,
        timestamp_ms=np.arange(lengths.sum()),
        cause=np.full(lengths.sum(), -1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_id_hash=names,
        region=same,
        locale=same,
        catalog=tiny_catalog(),
    )


def shared(users: int, following: int = 9, last: int = COMPLETE) -> list[tuple[str, list[int], int]]:
    return [(f"user {number}", [1, 2, 3, following], last) for number in range(users)]


def test_a_moment_shared_by_k_users_is_a_prototype_with_the_most_frequent_next_item() -> None:
    few = [(f"other {number}", [1, 2, 3, 8], COMPLETE) for number in range(K_ANONYMOUS - 1)]
    [found] = [prototypes(histories(shared(K_ANONYMOUS) + few), encode, 50)]
    assert found.next_item.tolist() == [9]
    assert found.users.tolist() == [2 * K_ANONYMOUS - 1]
    assert found.watched.tolist() == [K_ANONYMOUS]
    np.testing.assert_allclose(np.linalg.norm(found.vector, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "rows",
    [
        shared(K_ANONYMOUS - 1),
        [("one user", [1, 2, 3, 9], COMPLETE)] * (3 * K_ANONYMOUS),
        shared(K_ANONYMOUS, last=SKIP),
        [(f"user {number}", [1, 2, 3, 4 + number], COMPLETE) for number in range(K_ANONYMOUS)],
    ],
    ids=["too few", "one user many times", "skipped", "different next items"],
)
def test_a_moment_shared_by_fewer_users_is_no_prototype(rows: list[tuple[str, list[int], int]]) -> None:
    assert len(prototypes(histories(rows), encode, 50)) == 0


@given(data=st.data())
def test_every_prototype_has_at_least_k_users(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    users, k = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 8))
    rows = [
        (f"user {random.integers(users)}", random.integers(1, 6, random.integers(1, 9)).tolist(), COMPLETE)
        for _ in range(data.draw(st.integers(1, 60)))
    ]
    sessions = histories(rows)
    found = prototypes(sessions, encode, 50, k=k)
    for row in range(len(found)):
        watchers = {
            name
            for name, (_, items, _) in zip(sessions.user_id_hash.tolist(), rows, strict=True)
            if int(found.next_item[row]) in items[3:]
        }
        assert len(watchers) >= found.watched[row] >= k
        assert len(set(sessions.user_id_hash.tolist())) >= found.users[row] >= found.watched[row]


def some(users: int = K_ANONYMOUS, count: int = 20) -> Prototypes:
    random = np.random.default_rng(1)
    vector = random.standard_normal((count, D)).astype(np.float32)
    many = np.full(count, users, dtype=np.int64)
    return Prototypes(vector, np.arange(1, count + 1), many, many)


def test_the_index_finds_the_nearest_and_an_altered_index_is_rejected(tmp_path: Path) -> None:
    found = some()
    bundle = write(tiny_bundle(tmp_path), found)
    exemplars = Exemplars.load(bundle)
    assert exemplars is not None
    for row, [(nearest, cosine), *_] in enumerate(exemplars.nearest(found.vector, 3)):
        assert (nearest, exemplars.next_item[nearest]) == (row, row + 1)
        assert cosine == pytest.approx(1, abs=1e-3)
    (tmp_path / "exemplars.usearch").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"exemplars\.usearch"):
        Bundle.load(tmp_path)


def test_writing_again_replaces_the_prototypes(tmp_path: Path) -> None:
    write(tiny_bundle(tmp_path), some())
    exemplars = Exemplars.load(write(tmp_path, some(count=3)))
    assert exemplars is not None
    assert len(exemplars.next_item) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [({"users": K_ANONYMOUS - 1}, "50 users"), ({"count": 61}, "of this bundle")],
    ids=["too few users", "unknown items"],
)
def test_invalid_prototypes_are_rejected(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bundle = write(tiny_bundle(tmp_path), some(**change))
    with pytest.raises(BundleError, match=message):
        Exemplars.load(bundle)


def test_a_bundle_without_prototypes_loads_none(tmp_path: Path) -> None:
    assert Exemplars.load(Bundle.load(tiny_bundle(tmp_path))) is None
