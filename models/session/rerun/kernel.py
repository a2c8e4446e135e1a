"""The kernel: session vectors of runs that take a session up again, from its state and the rows that are new.

A run is seven numbers; columns are those of its own history, events stand on the right:

====== =========================================================================================
read   which session was read: the row of the state
moved  how many columns further right what is known stands here
begin  the first column with an event
known  the columns from begin to here, exclusive, are known: their keys and values are the state's
gap    a known column that nobody attends to, -1: none
own    the columns from here on are computed
last   the last column, exclusive: a run without any (begin = last) has the zero vector
====== =========================================================================================

What is known needs no copy, and a column between known and own is there for nobody. Each row of a run is computed in
the same way whatever stands beside it, so a run gives the same bits in any company.

Numba's cache is keyed on this file. After a change in ``product.py`` change this file too.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from models.session.rerun.product import LANES, ROWS, STEP, add, dot, exponentiate, lift, lowest, multiply, weigh

READ, MOVED, BEGIN, KNOWN, GAP, OWN, LAST = range(7)

_ROWS_AT_ONCE: Final = 240
"""Rows whose intermediate values stay in a core's cache beside the weights; a long run may bring more."""

_SEEN: Final = 4
"""Events that removals bring to one place: its own, the blank one, and those that follow once one or two are gone."""

_BITS: Final = 64
"""Numbers whose signs are looked at together."""

_EPSILON: Final = np.float32(1e-5)
_FAST: Final = {"reassoc", "contract", "nsz"}
"""What lets sums be vectors: any order of adding up, but one and the same for every row."""


class Scratch(NamedTuple):
    """Rows between the steps, flat float32: h and x [rows, d], mixed [rows, d], triple [rows, 3 d], fed [rows, d_ff].

    newest [runs, d], asked and met [runs, heads, d] are of the last layer; scores are one row's, for all heads;
    places int64 [d_ff] say where vectors begin.
    """

    h: Any
    x: Any
    mixed: Any
    triple: Any
    fed: Any
    newest: Any
    asked: Any
    met: Any
    scores: Any
    places: Any


@njit(cache=True, nogil=True, error_model="numpy")
def rerun(out: Any, state: Any, runs: Any, order: Any, item: Any, engagement: Any, heads: Any, w: Any) -> None:
    """Write each run's session vector to ``out`` float32 [n, d], which holds zeros.

    state is float32 [K, W, s]; runs int64 [n, 7], best with those of one session together; item and engagement int64
    [n, W], of which own columns are read, and out have in row ``order[i]``, int64 [n], what belongs to run i; w the
    weights (``Weights`` of this package).
    """
    d, inner, layers = out.shape[1], w.feed_in_bias.shape[1], len(w.feed_in_bias)
    most: Any = 0
    total: Any = 0
    for run in range(len(runs)):
        count = runs[run, LAST] - runs[run, OWN]
        most, total = max(most, count), total + count
    # Runs are at most as many as rows; a product rounds rows up.
    rows = max(min(_ROWS_AT_ONCE, total), most) + ROWS
    s = Scratch(
        np.zeros(rows * d, np.float32),
        np.zeros(rows * d, np.float32),
        np.zeros(rows * d, np.float32),
        np.zeros(rows * 3 * d, np.float32),
        np.zeros(rows * inner, np.float32),
        np.zeros(rows * d, np.float32),
        np.zeros(rows * heads * d, np.float32),
        np.zeros(rows * heads * d, np.float32),
        np.zeros(heads * (item.shape[1] + STEP), np.float32),
        np.zeros(inner, np.int64),
    )
    start, source = np.zeros(rows + 1, np.int64), np.zeros(rows, np.int64)
    seen = np.zeros((len(w.position), _SEEN, 3), np.int64)
    begin = 0
    while begin < len(runs):
        # As many runs as fit; run begin + i has the rows from start[i] to start[i + 1].
        end, fresh = _gather(runs, order, begin, item, engagement, d, w, s, start, source, seen)
        total = start[end - begin]
        for layer in range(layers - 1):
            # What enters the first layer are few rows, each many times.
            count = fresh if layer == 0 else total
            _norm(count, d, s.newest if layer == 0 else s.h, s.x, w.norms[2 * layer])
            multiply(count, s.x, 0, d, w.triple[layer], d, 3 * d, s.triple, 0, 3 * d)
            for run in range(begin, end):
                for row in range(start[run - begin], start[run - begin + 1]):
                    _attend(runs[run], state, layer, heads, d, s, start[run - begin], row, source)
            for row in range(total):
                source[row] = row
            multiply(total, s.mixed, 0, d, w.output[layer], d, d, s.x, 0, d)
            add(np.float32(1.0), s.x, 0, s.h, 0, total * d)
            _feed(total, d, inner, s.h, s, w, layer)
        _answer(out, state, runs, order, begin, end, heads, w, s, start)
        begin = end


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(
    runs: Any,
    order: Any,
    begin: Any,
    item: Any,
    engagement: Any,
    d: Any,
    w: Any,
    s: Scratch,
    start: Any,
    source: Any,
    seen: Any,
) -> Any:
    """Lay the own rows of the runs from ``begin`` on into h, and each of them that is another into newest, once.

    Own row i is row ``source[i]`` of those. Returns which run is the next, and how many rows are in newest. ``seen``
    int64 [max_length, _SEEN, 3] is for the item, engagement and row of what was met at each position.
    """
    end, total, fresh = begin, 0, 0
    while end < len(runs) and end - begin < _ROWS_AT_ONCE:
        run, which = runs[end], order[end]
        count = run[LAST] - run[OWN] if run[BEGIN] < run[LAST] else 0
        if end > begin and total + count > _ROWS_AT_ONCE:
            break
        if end == begin or run[READ] != runs[end - 1, READ]:
            seen[:] = -1
        start[end - begin] = total
        for row in range(total, total + count):
            column = run[OWN] + row - total
            position = column - run[BEGIN]
            title, kind = item[which, column], engagement[which, column]
            found = -1
            for slot in range(_SEEN):
                here = seen[position, slot]
                if here[2] < 0:
                    here[0], here[1], here[2] = title, kind, fresh
                if here[0] == title and here[1] == kind:
                    found = here[2]
                    break
            if found < 0 or found == fresh:
                found = fresh
                fresh += 1
                for i in range(d):
                    s.newest[found * d + i] = (w.item[title, i] + w.engagement[kind, i]) + w.position[position, i]
            source[row] = found
            _copy(s.newest, found * d, s.h, row * d, d)
        total += count
        end += 1
    start[end - begin] = total
    return end, fresh


@njit(cache=True, nogil=True, error_model="numpy")
def _answer(
    out: Any, state: Any, runs: Any, order: Any, begin: Any, end: Any, heads: Any, w: Any, s: Scratch, start: Any
) -> None:
    """Run the last layer for the newest row of each run, and what follows; its keys and values are never formed."""
    d, inner, last = out.shape[1], w.feed_in_bias.shape[1], len(w.feed_in_bias) - 1
    _norm(start[end - begin], d, s.h, s.x, w.norms[2 * last])
    count = 0
    for run in range(begin, end):
        if start[run - begin] < start[run - begin + 1]:
            at = (start[run - begin + 1] - 1) * d
            _copy(s.h, at, s.newest, count * d, d)
            _copy(s.x, at, s.mixed, count * d, d)
            count += 1
    multiply(count, s.mixed, 0, d, w.read_query, d, d, s.triple, 0, d)
    width, padded = d // heads, w.read_value.shape[1] // d
    for head in range(heads):
        multiply(count, s.triple, head * width, d, w.read_key[head], width, d, s.asked, head * d, heads * d)
    place = 0
    for run in range(begin, end):
        first, stop = start[run - begin], start[run - begin + 1]
        if first < stop:
            _read(runs[run], state, 2 * last * d, heads, d, s, first, stop, place)
            place += 1
    wide = heads * padded
    for head in range(heads):
        multiply(count, s.met, head * d, heads * d, w.read_value[head], d, padded, s.asked, head * padded, wide)
    multiply(count, s.asked, 0, wide, w.read_output, wide, d, s.x, 0, d)
    add(np.float32(1.0), s.x, 0, s.newest, 0, count * d)
    _feed(count, d, inner, s.newest, s, w, last)
    _norm(count, d, s.newest, s.x, w.norms[2 * last + 2])
    multiply(count, s.x, 0, d, w.projection, d, d, s.mixed, 0, d)
    place = 0
    for run in range(begin, end):
        # A run without any event keeps the zero vector.
        if start[run - begin] < start[run - begin + 1]:
            for i in range(d):
                out[order[run], i] = s.mixed[place * d + i] + w.projection_bias[i]
            place += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(source: Any, source_at: Any, target: Any, target_at: Any, count: Any) -> None:
    """Copy from one flat array to another; a slice would do, and take seconds longer to compile."""
    for i in range(count):
        target[target_at + i] = source[source_at + i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _norm(rows: Any, d: Any, h: Any, x: Any, scale_and_shift: Any) -> None:
    """Layer normalisation of each row of h into x, both flat [rows * d]."""
    scale, shift = scale_and_shift[0], scale_and_shift[1]
    for row in range(rows):
        source, target = h[row * d : (row + 1) * d], x[row * d : (row + 1) * d]
        total = np.float32(0.0)
        for i in range(d):
            total += source[i]
        mean = total / np.float32(d)
        total = np.float32(0.0)
        for i in range(d):
            away = source[i] - mean
            total += away * away
        factor = np.float32(1.0) / np.sqrt(total / np.float32(d) + _EPSILON)
        for i in range(d):
            target[i] = (source[i] - mean) * factor * scale[i] + shift[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _feed(rows: Any, d: Any, inner: Any, h: Any, s: Scratch, w: Any, layer: Any) -> None:
    """Add the feed-forward half of a layer to each row of h, flat [rows * d].

    Few numbers of the wide layer are positive in a trained model, 6 to 9 of 100 in the one that is shipped: only their
    rows of the second matrix are read. The sum is to the bit that with all the zeros.
    """
    x, fed, places = s.x, s.fed, s.places
    _norm(rows, d, h, x, w.norms[2 * layer + 1])
    multiply(rows, x, 0, d, w.feed_in[layer], d, inner, fed, 0, inner)
    bias = w.feed_in_bias[layer]
    for row in range(rows):
        first, count = row * inner, 0
        for begin in range(0, inner, _BITS):
            positive = 0
            for column in range(begin, min(begin + _BITS, inner), LANES):
                positive |= lift(fed, first + column, bias, column) << (column - begin)
            while positive:
                column = begin + lowest(positive)
                fed[first + count] = fed[first + column]
                places[count] = column * d
                count += 1
                positive &= positive - 1
        for i in range(row * d, (row + 1) * d):
            x[i] = np.float32(0.0)
        weigh(fed, first, places, count, w.feed_out[layer], x, row * d, d)
    add(np.float32(1.0), x, 0, h, 0, rows * d)
    for row in range(rows):
        add(np.float32(1.0), w.feed_out_bias[layer], 0, h, row * d, d)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _attend(
    run: Any, state: Any, layer: Any, heads: Any, d: Any, s: Scratch, first: Any, row: Any, source: Any
) -> None:
    """Write the context of one row to ``mixed``: attention over what is known, then over own rows up to this one.

    Own row i has its query, key and value in row ``source[i]`` of triple.
    """
    triple, scores, mixed = s.triple, s.scores, s.mixed
    width = d // heads
    known = run[KNOWN] - run[BEGIN]
    keys = known + row - first + 1
    wide = (keys + STEP - 1) // STEP * STEP
    query = source[row] * 3 * d
    scale = np.float32(1.0) / np.sqrt(np.float32(width))
    for key in range(keys):
        if key < known:
            past = state[run[READ], run[BEGIN] + key - run[MOVED]]
            at = 2 * layer * d
        else:
            past = triple
            at = source[first + key - known] * 3 * d + d
        for head in range(heads):
            scores[head * wide + key] = scale * dot(triple, query + head * width, past, at + head * width, width)
    gap = run[GAP] - run[BEGIN] if run[GAP] >= 0 else -1
    for head in range(heads):
        _soften(scores, head * wide, keys, wide, gap)
    for i in range(row * d, (row + 1) * d):
        mixed[i] = np.float32(0.0)
    for key in range(keys):
        if key < known:
            past = state[run[READ], run[BEGIN] + key - run[MOVED]]
            at = (2 * layer + 1) * d
        else:
            past = triple
            at = source[first + key - known] * 3 * d + 2 * d
        for head in range(heads):
            add(scores[head * wide + key], past, at + head * width, mixed, row * d + head * width, width)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _read(run: Any, state: Any, at: Any, heads: Any, d: Any, s: Scratch, first: Any, stop: Any, place: Any) -> None:
    """Write what each head of the last layer meets, [heads, d], for the newest row; ``asked`` are q·W_k, [heads, d]."""
    x, asked, met, scores = s.x, s.asked, s.met, s.scores
    known = run[KNOWN] - run[BEGIN]
    keys = known + stop - first
    wide = (keys + STEP - 1) // STEP * STEP
    base = place * heads * d
    for key in range(keys):
        if key < known:
            past = state[run[READ], run[BEGIN] + key - run[MOVED]]
            there = at
        else:
            past = x
            there = (first + key - known) * d
        for head in range(heads):
            scores[head * wide + key] = dot(asked, base + head * d, past, there, d)
    gap = run[GAP] - run[BEGIN] if run[GAP] >= 0 else -1
    for head in range(heads):
        _soften(scores, head * wide, keys, wide, gap)
    for i in range(base, base + heads * d):
        met[i] = np.float32(0.0)
    for key in range(keys):
        if key < known:
            past = state[run[READ], run[BEGIN] + key - run[MOVED]]
            there = at
        else:
            past = x
            there = (first + key - known) * d
        for head in range(heads):
            add(scores[head * wide + key], past, there, met, base + head * d, d)


@njit(cache=True, nogil=True, error_model="numpy")
def _soften(scores: Any, at: Any, keys: Any, wide: Any, gap: Any) -> None:
    """Turn scores into attention (softmax), none of it for the key ``gap``; ``wide``: keys to a multiple of STEP."""
    row = scores[at : at + wide]
    for key in range(keys, wide):
        row[key] = np.float32(-np.inf)
    if gap >= 0:
        row[gap] = np.float32(-np.inf)
    most = row[0]
    for key in range(keys):
        most = max(most, row[key])
    exponentiate(scores, at, most, wide)
    total = np.float32(0.0)
    for key in range(keys):
        total += row[key]
    share = np.float32(1.0) / total
    for key in range(keys):
        row[key] *= share
