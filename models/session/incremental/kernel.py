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
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from models.compiled import compiled, compiled_sum, empty
from models.session.incremental.product import (
    LANES,
    ROWS,
    STEP,
    add,
    clear,
    copy,
    dot,
    exponentiate,
    largest,
    lift,
    lowest,
    multiply,
    weigh,
)

READ, MOVED, BEGIN, KNOWN, GAP, OWN, LAST = range(7)

_ROWS_AT_ONCE: Final = 240
"""Rows whose intermediate values stay in a core's cache beside the weights; a long run may bring more."""

_SEEN: Final = 4
"""Events that removals bring to one place: its own, the blank one, and those that follow once one or two are gone."""

_BITS: Final = 64
"""Numbers whose signs are looked at together."""

_EPSILON: Final = np.float32(1e-5)


class Scratch(NamedTuple):
    """Rows between the steps, flat float32: h and x [rows, d], mixed [rows, d], triple [rows, 3 d], fed [rows, d_ff].

    newest [runs, d], asked and met [runs, heads, d] are of the last layer; scores are one row's, for one
    head; places int64 say where vectors begin.
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


class Told(NamedTuple):
    """What is written for n runs, in arrays that hold zeros.

    vector float32 [n, d]; where runs are whole sessions, state float32 [n, W, s] and attention float32 [n, W], the mean
    over layers and heads of what the newest row attends to, else both without rows.
    """

    vector: Any
    state: Any
    attention: Any


@compiled
def rerun(told: Told, state: Any, runs: Any, order: Any, item: Any, engagement: Any, heads: Any, w: Any) -> None:
    """Run sessions, whole or from their own rows on, and write what is told of them.

    state is float32 [K, W, s]; runs int64 [n, 7], best with those of one session together; item and engagement int64
    [n, W], of which own columns are read, and told have in row ``order[i]``, int64 [n], what belongs to run i; w the
    weights (``Weights`` of this package).
    """
    d, inner, layers = told.vector.shape[1], w.feed_in_bias.shape[1], len(w.feed_in_bias)
    most: Any = 0
    total: Any = 0
    for run in range(len(runs)):
        count = runs[run, LAST] - runs[run, OWN]
        most, total = max(most, count), total + count
    # Runs are at most as many as rows; a product rounds rows up.
    rows = max(min(_ROWS_AT_ONCE, total), most) + ROWS
    s = Scratch(
        empty(rows * d, np.float32),
        empty(rows * d, np.float32),
        empty(rows * d, np.float32),
        empty(rows * 3 * d, np.float32),
        empty(rows * inner, np.float32),
        empty(rows * d, np.float32),
        empty(rows * heads * d, np.float32),
        empty(rows * heads * d, np.float32),
        empty(item.shape[1] + STEP, np.float32),
        empty(max(inner, item.shape[1]), np.int64),
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
            _attend(told, runs, order, begin, end, start, source, state, layer, layers, heads, d, s)
            for row in range(total):
                source[row] = row
            multiply(total, s.mixed, 0, d, w.output[layer], d, d, s.x, 0, d)
            add(np.float32(1.0), s.x, 0, s.h, 0, total * d)
            _feed(total, d, inner, s.h, s, w, layer)
        _answer(told, state, runs, order, begin, end, heads, w, s, start)
        begin = end


@compiled
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
            copy(s.newest, found * d, s.h, row * d, d)
        total += count
        end += 1
    start[end - begin] = total
    return end, fresh


@compiled
def _answer(
    told: Told, state: Any, runs: Any, order: Any, begin: Any, end: Any, heads: Any, w: Any, s: Scratch, start: Any
) -> None:
    """Run the last layer for the newest row of each run, and what follows; its keys and values are never formed."""
    d, inner, last = told.vector.shape[1], w.feed_in_bias.shape[1], len(w.feed_in_bias) - 1
    _norm(start[end - begin], d, s.h, s.x, w.norms[2 * last])
    count = 0
    for run in range(begin, end):
        if start[run - begin] < start[run - begin + 1]:
            at = (start[run - begin + 1] - 1) * d
            copy(s.h, at, s.newest, count * d, d)
            copy(s.x, at, s.mixed, count * d, d)
            count += 1
    multiply(count, s.mixed, 0, d, w.read_query, d, d, s.triple, 0, d)
    width, padded = d // heads, w.read_value.shape[1] // d
    for head in range(heads):
        multiply(count, s.triple, head * width, d, w.read_key[head], width, d, s.asked, head * d, heads * d)
    _read(told, runs, order, begin, end, start, state, last, heads, d, s)
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
                told.vector[order[run], i] = s.mixed[place * d + i] + w.projection_bias[i]
            place += 1


@compiled_sum
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


@compiled
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
        clear(x, row * d, d)
        weigh(fed, first, places, 0, count, w.feed_out[layer], 0, x, row * d, d)
    add(np.float32(1.0), x, 0, h, 0, rows * d)
    for row in range(rows):
        add(np.float32(1.0), w.feed_out_bias[layer], 0, h, row * d, d)


@compiled_sum
def _attend(
    told: Told, runs: Any, order: Any, begin: Any, end: Any, start: Any, source: Any, state: Any, layer: Any,
    layers: Any, heads: Any, d: Any, s: Scratch,
) -> None:  # fmt: skip
    """Write the context of each row to ``mixed``: attention over what is known, then over own rows up to this one.

    Own row i has its query, key and value in row ``source[i]`` of triple.
    """
    triple, mixed, places, scores, past, size = s.triple, s.mixed, s.places, s.scores, state.ravel(), state.shape[2]
    width = d // heads
    scale = np.float32(1.0) / np.sqrt(np.float32(width))
    for run in range(begin, end):
        first, stop = start[run - begin], start[run - begin + 1]
        known, gap = _place(runs[run], state.shape[1], size, 2 * layer * d, places)
        for row in range(first, stop):
            own = source[row] * 3 * d
            places[known + row - first] = own + d
            keys = known + row - first + 1
            for head in range(heads):
                step = head * width
                _meet(
                    triple, own + step, scale, past, triple, places, step, d, known, keys, gap, width, scores, mixed,
                    row * d + step,
                )  # fmt: skip
                if row == stop - 1:
                    _note(told.attention, order[run], runs[run, BEGIN], scores, keys, layers * heads)
            if len(told.state):
                column = runs[run, OWN] + row - first
                for i in range(2 * d):
                    told.state[order[run], column, 2 * layer * d + i] = triple[own + d + i]


@compiled_sum
def _read(
    told: Told, runs: Any, order: Any, begin: Any, end: Any, start: Any, state: Any, last: Any, heads: Any, d: Any,
    s: Scratch,
) -> None:  # fmt: skip
    """Write what each head of the last layer meets, [heads, d] a newest row; ``asked`` are q·W_k, [heads, d] each."""
    x, asked, met, places, scores, past, size = s.x, s.asked, s.met, s.places, s.scores, state.ravel(), state.shape[2]
    place, at = 0, 2 * last * d
    for run in range(begin, end):
        first, stop = start[run - begin], start[run - begin + 1]
        if first == stop:
            continue
        known, gap = _place(runs[run], state.shape[1], size, at, places)
        for row in range(first, stop):
            places[known + row - first] = row * d
        keys = known + stop - first
        for _ in range(heads):
            _meet(
                asked, place, np.float32(1.0), past, x, places, 0, 0, known, keys, gap, d, scores, met, place
            )  # fmt: skip
            _note(told.attention, order[run], runs[run, BEGIN], scores, keys, (last + 1) * heads)
            place += d
        if len(told.state):
            for row in range(first, stop):
                for i in range(d):
                    told.state[order[run], runs[run, OWN] + row - first, at + i] = x[row * d + i]


@compiled
def _place(run: Any, width: Any, size: Any, at: Any, places: Any) -> Any:
    """Write where a run's known keys begin, ``at`` behind each row of the state; return their number and the gap's."""
    known = run[KNOWN] - run[BEGIN]
    begin = (run[READ] * width + run[BEGIN] - run[MOVED]) * size + at
    for key in range(known):
        places[key] = begin + key * size
    return known, max(run[GAP] - run[BEGIN], -1)


@compiled
def _note(attention: Any, which: Any, begin: Any, scores: Any, keys: Any, parts: Any) -> None:
    """Add one head's attention to the mean over so many, where that is asked for."""
    if len(attention):
        for key in range(keys):
            attention[which, begin + key] += scores[key] / np.float32(parts)


@compiled
def _meet(
    query: Any, query_at: Any, scale: Any, past: Any, own: Any, places: Any, key_at: Any, value: Any, known: Any,
    keys: Any, gap: Any, width: Any, scores: Any, mixed: Any, mixed_at: Any,
) -> None:  # fmt: skip
    """Write to a vector of ``mixed`` what a query meets, both ``width`` wide; all flat float32.

    Key j begins ``key_at`` behind ``places[j]``, the ``known`` first of them in ``past``, the others in ``own``; each
    value begins ``value`` behind its key. Nobody attends to the key ``gap``.
    """
    clear(mixed, mixed_at, width)
    for key in range(known):
        scores[key] = scale * dot(query, query_at, past, places[key] + key_at, width)
    for key in range(known, keys):
        scores[key] = scale * dot(query, query_at, own, places[key] + key_at, width)
    _soften(scores, keys, gap)
    weigh(scores, 0, places, 0, known, past, key_at + value, mixed, mixed_at, width)
    weigh(scores, known, places, known, keys - known, own, key_at + value, mixed, mixed_at, width)


@compiled
def _soften(scores: Any, keys: Any, gap: Any) -> None:
    """Turn scores into attention (softmax), none of it for the key ``gap``."""
    wide = (keys + STEP - 1) // STEP * STEP
    for key in range(keys, wide):
        scores[key] = np.float32(-np.inf)
    if gap >= 0:
        scores[gap] = np.float32(-np.inf)
    share = np.float32(1.0) / exponentiate(scores, 0, largest(scores, 0, wide), wide)
    for key in range(keys):
        scores[key] *= share
