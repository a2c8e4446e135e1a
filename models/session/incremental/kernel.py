"""The kernel of incremental inference: session vectors of edited histories, from a KV cache and the positions after it.

A *run* computes the session vector of one history. A history stands at the right of its columns, and a run is seven
numbers, the columns counted in its own history:

======== ==============================================================================================
SESSION  the row of the cache that the run reads
SHIFT    how many columns further right the cached positions stand in this history
BEGIN    the first column with an event
PREFIX   the end of the prefix: columns [BEGIN, PREFIX) take their keys and values from the cache
MASKED   a column of the prefix that is masked, -1 for none
COMPUTED the first column that is computed; columns [PREFIX, COMPUTED) are masked
END      one past the last column; a run without events (BEGIN = END) has the zero vector
======== ==============================================================================================

No position attends to a masked column. The prefix is not copied. Every position is computed by the same operations in
the same order, whichever runs share the batch, so that a run has the same bits alone and in any batch.
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

SESSION, SHIFT, BEGIN, PREFIX, MASKED, COMPUTED, END = range(7)

_ROWS_AT_ONCE: Final = 240
"""Rows (computed positions) whose activations stay in a core's cache beside the weights; one long run may exceed it."""

_SEEN: Final = 4
"""Distinct events that can occupy one position across all edits of a session: the original, the blank event, and the
events that follow after one or two deletions."""

_BITS: Final = 64
"""Activations whose signs are tested together."""

_EPSILON: Final = np.float32(1e-5)


class Output(NamedTuple):
    """Results of n runs, in arrays that hold zeros at first.

    vector float32 [n, d]. Where complete histories are run, cache float32 [n, W, s], the KV cache of every position,
    and attention float32 [n, W], from the newest position, its mean over layers and heads; otherwise both have no rows.
    """

    vector: Any
    cache: Any
    attention: Any


class Batch(NamedTuple):
    """What runs read.

    runs int64 [n, 7], quickest with the runs of one session together; order int64 [n], the row of the output and of the
    histories that belongs to each run; item and engagement int64 [n, W], the histories, of which computed columns are
    read; cache float32 [K, W, s].
    """

    runs: Any
    order: Any
    item: Any
    engagement: Any
    cache: Any


class Scratch(NamedTuple):
    """Activations of the runs in progress, flat float32, and where they stand.

    h, x and mixed [rows, d], triple [rows, 3 d] (query, key, value), fed [rows, d_ff]. Of the last layer: newest
    [runs, d], queries and contexts [runs, heads, d]. scores [W], of one position for one head; places int64, where
    vectors begin. start int64 [rows + 1]: run i of those in progress has the rows from start[i] to start[i + 1]; source
    int64 [rows], the row of ``triple`` of each; seen int64 [max_length, _SEEN, 3], see :func:`_gather`.
    """

    h: Any
    x: Any
    mixed: Any
    triple: Any
    fed: Any
    newest: Any
    queries: Any
    contexts: Any
    scores: Any
    places: Any
    start: Any
    source: Any
    seen: Any


class Keys(NamedTuple):
    """The keys and values that the positions of a run attend to.

    Key j begins at ``places[j]``: the first ``prefix`` keys in ``cached``, the others in ``computed``, both
    flat float32. Each value begins ``value`` behind its key. The key ``masked`` has no attention, -1 for none.
    """

    cached: Any
    computed: Any
    places: Any
    value: Any
    prefix: Any
    masked: Any


@compiled
def infer(output: Output, batch: Batch, heads: Any, w: Any) -> None:
    """Compute a batch of runs; ``w`` are the weights (``Weights`` of this package)."""
    runs = batch.runs
    d, inner, layers = output.vector.shape[1], w.feed_in_bias.shape[1], len(w.feed_in_bias)
    most: Any = 0
    total: Any = 0
    for run in range(len(runs)):
        count = runs[run, END] - runs[run, COMPUTED]
        most, total = max(most, count), total + count
    # A run without events has no row, but a place in ``start``.
    rows = max(min(_ROWS_AT_ONCE, max(total, len(runs))), most)
    s = _scratch(rows, d, inner, heads, batch.item.shape[1], len(w.position))
    begin = 0
    while begin < len(runs):
        # As many runs as fit.
        end, fresh = _gather(batch, begin, d, w, s)
        total = s.start[end - begin]
        for layer in range(layers - 1):
            # The rows that enter the first layer are few, each for many runs.
            count = fresh if layer == 0 else total
            _norm(count, d, s.newest if layer == 0 else s.h, s.x, w.norms[2 * layer])
            multiply(count, s.x, 0, d, w.triple[layer], d, 3 * d, s.triple, 0, 3 * d)
            _attend(output, batch, begin, end, layer, layers, heads, d, s)
            for row in range(total):
                s.source[row] = row
            multiply(total, s.mixed, 0, d, w.output[layer], d, d, s.x, 0, d)
            add(np.float32(1.0), s.x, 0, s.h, 0, total * d)
            _feed(total, d, inner, s.h, s, w, layer)
        _finish(output, batch, begin, end, heads, w, s)
        begin = end


@compiled
def _scratch(rows: Any, d: Any, inner: Any, heads: Any, width: Any, max_length: Any) -> Scratch:
    """Make room for so many rows, at most as many runs, and histories ``width`` columns wide.

    Arrays are not set: each step writes the rows of its runs before the next step reads them. A product rounds rows up
    to a multiple of ROWS. The rows in excess are read unset and written, and nothing else reads them.
    """
    rows += ROWS
    return Scratch(
        empty(rows * d, np.float32),
        empty(rows * d, np.float32),
        empty(rows * d, np.float32),
        empty(rows * 3 * d, np.float32),
        empty(rows * inner, np.float32),
        empty(rows * d, np.float32),
        empty(rows * heads * d, np.float32),
        empty(rows * heads * d, np.float32),
        empty(width + STEP, np.float32),
        empty(max(inner, width), np.int64),
        np.zeros(rows + 1, np.int64),
        np.zeros(rows, np.int64),
        np.zeros((max_length, _SEEN, 3), np.int64),
    )


@compiled
def _gather(batch: Batch, begin: Any, d: Any, w: Any, s: Scratch) -> Any:
    """Write the embeddings of the runs from ``begin`` on to h, and each distinct one of a session once to newest.

    Row i of h is row ``source[i]`` of newest. Returns the first run that did not fit, and the rows of newest. ``seen``
    holds, for each position of a session, the items, engagements and rows of newest met there so far.
    """
    runs, item, engagement, seen = batch.runs, batch.item, batch.engagement, s.seen
    end, total, fresh = begin, 0, 0
    while end < len(runs) and end - begin < _ROWS_AT_ONCE:
        run, which = runs[end], batch.order[end]
        count = run[END] - run[COMPUTED] if run[BEGIN] < run[END] else 0
        if end > begin and total + count > _ROWS_AT_ONCE:
            break
        if end == begin or run[SESSION] != runs[end - 1, SESSION]:
            seen[:] = -1
        s.start[end - begin] = total
        for row in range(total, total + count):
            column = run[COMPUTED] + row - total
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
            s.source[row] = found
            copy(s.newest, found * d, s.h, row * d, d)
        total += count
        end += 1
    s.start[end - begin] = total
    return end, fresh


@compiled
def _finish(output: Output, batch: Batch, begin: Any, end: Any, heads: Any, w: Any, s: Scratch) -> None:
    """Compute the last layer for the newest position of each run, and the session vector.

    The keys and values of the last layer are never formed: queries times W_k meet the positions as they are, and W_v
    multiplies their weighted sum.
    """
    start = s.start
    d, inner, last = output.vector.shape[1], w.feed_in_bias.shape[1], len(w.feed_in_bias) - 1
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
        multiply(count, s.triple, head * width, d, w.read_key[head], width, d, s.queries, head * d, heads * d)
    _attend_last(output, batch, begin, end, last, heads, d, s)
    wide = heads * padded
    for head in range(heads):
        multiply(count, s.contexts, head * d, heads * d, w.read_value[head], d, padded, s.queries, head * padded, wide)
    multiply(count, s.queries, 0, wide, w.read_output, wide, d, s.x, 0, d)
    add(np.float32(1.0), s.x, 0, s.newest, 0, count * d)
    _feed(count, d, inner, s.newest, s, w, last)
    _norm(count, d, s.newest, s.x, w.norms[2 * last + 2])
    multiply(count, s.x, 0, d, w.projection, d, d, s.mixed, 0, d)
    place = 0
    for run in range(begin, end):
        # A run without events keeps the zero vector.
        if start[run - begin] < start[run - begin + 1]:
            for i in range(d):
                output.vector[batch.order[run], i] = s.mixed[place * d + i] + w.projection_bias[i]
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

    Few activations of the wide layer are positive in a trained model, 6 to 9 of 100 in the shipped one. Only their rows
    of the second matrix are read. Adding the zeros of the others would give the same bits.
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
    output: Output, batch: Batch, begin: Any, end: Any, layer: Any, layers: Any, heads: Any, d: Any, s: Scratch
) -> None:
    """Write the context of each row to ``mixed``: attention over the prefix, then over computed rows up to this one.

    Row i has its query, key and value in row ``source[i]`` of triple.
    """
    runs, triple, places, cached, size = batch.runs, s.triple, s.places, batch.cache.ravel(), batch.cache.shape[2]
    width = d // heads
    scale = np.float32(1.0) / np.sqrt(np.float32(width))
    for run in range(begin, end):
        first, stop, which = s.start[run - begin], s.start[run - begin + 1], batch.order[run]
        prefix, masked = _prefix(runs[run], batch.cache.shape[1], size, 2 * layer * d, places)
        keys = Keys(cached, triple, places, d, prefix, masked)
        for row in range(first, stop):
            own = s.source[row] * 3 * d
            places[prefix + row - first] = own + d
            count = prefix + row - first + 1
            for head in range(heads):
                step = head * width
                _context(triple, own + step, scale, keys, step, count, width, s.scores, s.mixed, row * d + step)
                if row == stop - 1:
                    _note(output.attention, which, runs[run, BEGIN], s.scores, count, layers * heads)
            if len(output.cache):
                column = runs[run, COMPUTED] + row - first
                for i in range(2 * d):
                    output.cache[which, column, 2 * layer * d + i] = triple[own + d + i]


@compiled_sum
def _attend_last(output: Output, batch: Batch, begin: Any, end: Any, last: Any, heads: Any, d: Any, s: Scratch) -> None:
    """Write the context of each newest position and head, [heads, d], to ``contexts``; queries are q W_k, the same."""
    runs, x, places, cached, size = batch.runs, s.x, s.places, batch.cache.ravel(), batch.cache.shape[2]
    place, at = 0, 2 * last * d
    for run in range(begin, end):
        first, stop, which = s.start[run - begin], s.start[run - begin + 1], batch.order[run]
        if first == stop:
            continue
        prefix, masked = _prefix(runs[run], batch.cache.shape[1], size, at, places)
        for row in range(first, stop):
            places[prefix + row - first] = row * d
        keys, count = Keys(cached, x, places, 0, prefix, masked), prefix + stop - first
        for _ in range(heads):
            _context(s.queries, place, np.float32(1.0), keys, 0, count, d, s.scores, s.contexts, place)
            _note(output.attention, which, runs[run, BEGIN], s.scores, count, (last + 1) * heads)
            place += d
        if len(output.cache):
            for row in range(first, stop):
                for i in range(d):
                    output.cache[which, runs[run, COMPUTED] + row - first, at + i] = x[row * d + i]


@compiled
def _prefix(run: Any, width: Any, size: Any, at: Any, places: Any) -> Any:
    """Write where the keys of a run's prefix begin, ``at`` behind each position of the cache.

    Returns their number, and which of them is masked, -1 for none.
    """
    prefix = run[PREFIX] - run[BEGIN]
    begin = (run[SESSION] * width + run[BEGIN] - run[SHIFT]) * size + at
    for key in range(prefix):
        places[key] = begin + key * size
    return prefix, max(run[MASKED] - run[BEGIN], -1)


@compiled
def _note(attention: Any, which: Any, begin: Any, scores: Any, count: Any, parts: Any) -> None:
    """Add the attention of one head of one layer to the mean over ``parts`` of them, where the output has attention."""
    if len(attention):
        for key in range(count):
            attention[which, begin + key] += scores[key] / np.float32(parts)


@compiled
def _context(
    query: Any,
    query_at: Any,
    scale: Any,
    keys: Keys,
    at: Any,
    count: Any,
    width: Any,
    scores: Any,
    target: Any,
    target_at: Any,
) -> None:
    """Write the sum of ``count`` values, weighted by attention, to ``target``; both are ``width`` wide.

    A head's keys and values begin ``at`` behind those of the position.
    """
    clear(target, target_at, width)
    for key in range(keys.prefix):
        scores[key] = scale * dot(query, query_at, keys.cached, keys.places[key] + at, width)
    for key in range(keys.prefix, count):
        scores[key] = scale * dot(query, query_at, keys.computed, keys.places[key] + at, width)
    _softmax(scores, count, keys.masked)
    values, rest = at + keys.value, count - keys.prefix
    weigh(scores, 0, keys.places, 0, keys.prefix, keys.cached, values, target, target_at, width)
    weigh(scores, keys.prefix, keys.places, keys.prefix, rest, keys.computed, values, target, target_at, width)


@compiled
def _softmax(scores: Any, count: Any, masked: Any) -> None:
    """Turn scores into attention, with none for the key ``masked``."""
    wide = (count + STEP - 1) // STEP * STEP
    for key in range(count, wide):
        scores[key] = np.float32(-np.inf)
    if masked >= 0:
        scores[masked] = np.float32(-np.inf)
    share = np.float32(1.0) / exponentiate(scores, 0, largest(scores, 0, wide), wide)
    for key in range(count):
        scores[key] *= share
