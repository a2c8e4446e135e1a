"""Incremental inference compared with complete runs of the graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import Bundle, BundleError
from models.session.config import SessionConfig
from models.session.histories import Histories, Reading
from models.session.incremental import plan
from models.session.incremental.kernel import COMPUTED, PREFIX
from models.session.incremental.product import LANES, ROWS, multiply, packed
from models.session.runtime import SessionModel
from tests.bundles import ITEMS, TINY, tiny_bundle
from tests.graphs import reduced

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
WIDTH = 14


def made(directory: Path, config: SessionConfig) -> SessionModel:
    return SessionModel(Bundle.load(tiny_bundle(directory, config=config)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[SessionModel]:
    shapes = [TINY, SessionConfig(items=ITEMS, d=32, layers=3, heads=4, d_ff=48)]
    return [made(tmp_path_factory.mktemp("bundle"), shape) for shape in shapes]


def sessions(lengths: list[int], seed: int) -> tuple[Any, Any, Any]:
    random, length = np.random.default_rng(seed), np.array(lengths)
    there = np.arange(WIDTH) >= WIDTH - length[:, None]
    item = np.where(there, random.integers(1, ITEMS + 1, there.shape), 0)
    return item, np.where(there, random.integers(1, 6, there.shape), 0), length


@SETTINGS
@given(rows=st.integers(1, 20), depth=st.integers(1, 40), panels=st.integers(1, 3), seed=st.integers(0, 99))
def test_products_are_those_of_numpy_whatever_rows_come_together(rows: int, depth: int, panels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a = np.zeros((rows + ROWS, depth), np.float32)
    a[:rows] = random.normal(size=(rows, depth))
    b = random.normal(size=(depth, panels * LANES)).astype(np.float32)
    together, alone = (np.zeros((rows + ROWS, panels * LANES), np.float32) for _ in range(2))
    multiply(rows, a.ravel(), 0, depth, packed(b), depth, panels * LANES, together.ravel(), 0, panels * LANES)
    np.testing.assert_allclose(together[:rows], a[:rows] @ b, rtol=1e-4, atol=1e-4)
    for row in range(rows):
        multiply(1, a.ravel(), row * depth, depth, packed(b), depth, panels * LANES, alone.ravel(), 0, panels * LANES)
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.slow
@SETTINGS
@given(lengths=st.lists(st.integers(1, WIDTH), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_what_comes_after_any_event_may_differ(models: list[SessionModel], lengths: list[int], seed: int) -> None:
    item, engagement, length = sessions(lengths, seed)
    random = np.random.default_rng(seed + 1)
    kept = WIDTH - 1 - (random.random(len(length)) * length).astype(np.int64)
    other = np.where(np.arange(WIDTH) >= kept[:, None], random.integers(1, ITEMS + 1, item.shape), item)
    row, none = np.arange(len(length)), np.full(len(length), -1)
    for model in models:
        cache = model.run(item, engagement, cache=True).cache
        assert model.incremental is not None
        again = model.incremental.vectors(cache, other, engagement, plan(row, kept, none * 0, length, WIDTH, none))
        np.testing.assert_allclose(again, model.run(other, engagement).vector, **CLOSE)


@pytest.mark.slow
@SETTINGS
@given(lengths=st.lists(st.integers(1, WIDTH), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_a_masked_event_is_one_row_of_without(models: list[SessionModel], lengths: list[int], seed: int) -> None:
    item, engagement, length = sessions(lengths, seed)
    row, column = np.nonzero(item[:, :-1])
    for model in models:
        whole = model.run(item, engagement, cache=True)
        assert model.incremental is not None
        runs = plan(row, column, np.zeros_like(row), length[row], WIDTH, column)
        masked = model.incremental.vectors(whole.cache, item[row], engagement[row], runs)
        np.testing.assert_allclose(masked, whole.without[row, column], **CLOSE)


def test_a_run_gives_the_same_bits_alone_as_among_others(models: list[SessionModel]) -> None:
    item, engagement, length = sessions([14, 3, 1, 9, 12, 7, 2, 14, 5], 3)
    row, column = np.nonzero(item)
    none = np.full_like(row, -1)
    for model in models:
        cache = model.run(item, engagement, cache=True).cache
        assert model.incremental is not None
        runs = plan(row, column, np.zeros_like(row), length[row], WIDTH, none)
        together = model.incremental.vectors(cache, item[row], engagement[row], runs)
        for each in range(len(runs)):
            part = slice(each, each + 1)
            alone = model.incremental.vectors(cache, item[row][part], engagement[row][part], runs[part])
            np.testing.assert_array_equal(alone[0], together[each])


def cut(whole: Histories, row: Any, column: Any) -> Histories:
    """Some histories, each without the event in its column."""
    item, engagement = whole.item[row], whole.engagement[row]
    for lines in (item, engagement):
        for line, gone in zip(lines, column, strict=True):
            line[:] = [0, *np.delete(line, gone)]
    return Histories(item, engagement, whole.length[row] - 1)


def ablations(item: Any, engagement: Any, length: Any, blank: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Every event blanked, masked and deleted, and every pair of neighbours deleted: item, engagement, runs."""
    whole = Histories(item, engagement, length)
    row, column = np.nonzero(item)
    none, kept = np.full_like(row, -1), np.zeros_like(row)
    blanked = Histories(item[row], engagement[row], length[row])
    each = np.arange(len(row))
    blanked.item[each, column], blanked.engagement[each, column] = blank
    older = column < WIDTH - 1
    masked = Histories(item[row[older]], engagement[row[older]], length[row[older]])
    once = cut(whole, row, column)
    pairs = np.flatnonzero(older)
    twice = cut(once, pairs, column[pairs] + 1)
    made = [
        (blanked, plan(row, column, kept, blanked.length, WIDTH, none)),
        (masked, plan(row[older], column[older], kept[older], masked.length, WIDTH, column[older])),
        (once, plan(row, column, kept + 1, once.length, WIDTH, none)),
        (twice, plan(row[pairs], column[pairs], kept[pairs] + 2, twice.length, WIDTH, none[pairs])),
    ]
    changed, runs = zip(*made, strict=True)
    return (
        np.concatenate([each.item for each in changed]),
        np.concatenate([each.engagement for each in changed]),
        np.concatenate(runs),
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, WIDTH), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    items=st.integers(1, ITEMS),
)
def test_ablations_in_any_company_and_order_give_what_the_graph_gives(
    models: list[SessionModel], lengths: list[int], seed: int, items: int
) -> None:
    item, engagement, length = sessions(lengths, seed)
    # Of few titles, many stand in a history more than once.
    item = np.where(item > 0, item % items + 1, 0)
    random = np.random.default_rng(seed)
    for model in models:
        changed, received, runs = ablations(item, engagement, length, model.blank_event)
        cache = model.run(item, engagement, cache=True).cache
        assert model.incremental is not None
        order = random.permutation(len(runs))
        together = np.empty((len(runs), model.dimension), np.float32)
        together[order] = model.incremental.vectors(cache, changed[order], received[order], runs[order])
        shown = runs[:, COMPUTED] == runs[:, PREFIX]  # the graph cannot mask one event alone
        expected = model.run(changed[shown], received[shown], without=False).vector
        np.testing.assert_allclose(together[shown], expected, **CLOSE)
        for each in random.permutation(len(runs))[:12]:
            part = slice(each, each + 1)
            alone = model.incremental.vectors(cache, changed[part], received[part], runs[part])
            np.testing.assert_array_equal(alone[0], together[each])


def test_many_histories_without_events_are_read(models: list[SessionModel]) -> None:
    item, engagement, length = sessions([0] * 300 + [2], 0)
    for model in models:
        assert model.incremental is not None
        reading = model.incremental.read(Histories(item, engagement, length))
        assert not reading.vector[:-1].any()
        assert reading.vector[-1].any()
        only = model.incremental.read(Histories(item[:-1], engagement[:-1], length[:-1]))
        assert not only.vector.any()


def test_without_any_event_the_vector_is_zero(models: list[SessionModel]) -> None:
    item, engagement, _ = sessions([1, 4], 0)
    for model in models:
        cache = model.run(item, engagement, cache=True).cache
        assert model.incremental is not None
        runs = plan(np.array([0]), np.array([WIDTH - 1]), np.array([1]), np.array([0]), WIDTH, np.array([-1]))
        assert not model.incremental.vectors(cache, item[:1] * 0, engagement[:1] * 0, runs).any()


@pytest.mark.slow
def test_other_weights_than_the_graphs_are_refused(models: list[SessionModel]) -> None:
    for model in models:
        kept = model.incremental
        assert kept is not None
        bias = kept.weights.projection_bias + 0.01
        bias.flags.writeable = False  # as read from the bundle: for any other type the kernels are compiled again
        other = replace(kept, weights=kept.weights._replace(projection_bias=bias))

        def graph(histories: Histories, model: SessionModel = model) -> Reading:
            got = model.run(histories.item, histories.engagement, cache=True)
            return Reading(histories, got.vector, got.attention.mean(axis=(1, 2)), got.cache, None)

        assert kept.self_check(graph, model.max_length) < 1e-5
        with pytest.raises(BundleError, match="expected incremental inference to agree with the graph"):
            other.self_check(graph, model.max_length)


@pytest.mark.parametrize("change", [{"d": 24}, {"d_ff": 20}, {"heads": 4}])
def test_a_size_that_the_kernel_does_not_support_is_run_by_the_graph(change: dict[str, int], tmp_path: Path) -> None:
    assert made(tmp_path, replace(TINY, **change)).incremental is None


def test_a_graph_without_a_kv_cache_is_run_by_the_graph_alone(tmp_path: Path, models: list[SessionModel]) -> None:
    own = Bundle.load(tiny_bundle(tmp_path / "own"))
    graph = reduced(own.session_onnx.read_bytes(), without=True, blank=True)
    model = SessionModel(Bundle.load(tiny_bundle(tmp_path / "other", session_onnx=graph)))
    assert model.incremental is None
    item, engagement, length = sessions([14, 3, 1], 3)
    histories = Histories(item, engagement, length)
    np.testing.assert_allclose(model.read(histories).vector, models[0].read(histories).vector, **CLOSE)
