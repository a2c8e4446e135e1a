"""The kernel: one pass down and one pass up each tree, for 1, 32 or 64 rows at once. See ``treeshap.md``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.compiled import compiled, empty, inlined
from models.trees.encode import Binning, codes_of, encode
from models.trees.simd import (
    ROW_LANES,
    along,
    along_either,
    below,
    differ,
    first,
    fma,
    full,
    load,
    meet,
    mul,
    one_row,
    pick,
    spread,
    store,
    sub,
    width,
)
from models.unchecked import peek, poke

_ALIGNMENT = 64  # bytes: a vector never straddles two cache lines
_NONE = np.float32(0)


class Tables(NamedTuple):
    """What the kernel reads: splits and trees (records of ``program.py``), float32 tables and quadrature rules.

    targets int64 [players]: for each pair of class and feature that some tree splits, its column in the output.
    """

    binning: Binning
    splits: Any
    trees: Any
    tables: Any
    quad: Any
    targets: Any


@inlined
def _aligned(length: int) -> Any:
    space = empty(length + _ALIGNMENT // 4, np.float32)
    skip = (_ALIGNMENT - np.int64(space.ctypes.data) % _ALIGNMENT) // 4
    return space[skip : skip + length]


@inlined
def _goes_left(codes: Any, split: Any, masks: Any) -> Any:
    hits = below(codes, split.column * width(masks), split.threshold, masks)
    return differ(hits, full(split.flip, masks))


@inlined
def _add(phi: Any, split: Any, x: Any, y: Any, masks: Any) -> None:
    at = split.player * width(masks)
    store(phi, at, fma(x, y, load(phi, at, masks)), masks)


@inlined
def _edge(split: Any, masks: Any) -> Any:
    return pick(peek(masks, split.edge), split.edge_hi, split.edge_lo)


@inlined
def _constants(tables: Any, table: int, stride: int, on: Any, left: Any) -> Any:
    """For a repeated feature: z - o of the path so far, and the contribution of the node t = 0."""
    at = table + 2 * stride
    earlier = pick(on, peek(tables, at), peek(tables, at + 1))
    return earlier, pick(left, peek(tables, at + 2), pick(on, peek(tables, at + 3), _NONE))


@inlined
def _steps(tree: Any, masks: Any) -> int:
    """Vectors per split: one for each quadrature node, or one for each 8 of them."""
    return (tree.K + ROW_LANES - 1) // ROW_LANES if one_row(masks) else tree.K


@inlined
def _stride(tree: Any) -> int:
    """Floats from one quadrature table to the next."""
    return (tree.K + ROW_LANES - 1) // ROW_LANES * ROW_LANES


@inlined
def _tree(codes: Any, splits: Any, tree: Any, tables: Any, quad: Any, W: Any, phi: Any, steps: int, masks: Any) -> None:
    _down(codes, splits, tree, tables, quad, W, steps, masks)
    _turn(codes, splits, tree, tables, quad, W, phi, steps, masks)
    _up(splits, tree, tables, quad, W, phi, steps, masks)


@inlined
def _down(codes: Any, splits: Any, tree: Any, tables: Any, quad: Any, W: Any, steps: int, masks: Any) -> None:
    """Leave in ``W`` the product of the factors on the path to each upper split, without its own feature's factor."""
    begin, upper, nodes = tree.begin, tree.upper, tree.quad
    lanes, stride = width(masks), _stride(tree)
    size = steps * lanes
    for k in range(steps):
        store(W, k * lanes, along(quad, nodes + stride, k, masks), masks)
    for i in range(upper):
        split = peek(splits, begin + i)
        left = _goes_left(codes, split, masks)
        s, z = _edge(split, masks), -split.edge_lo
        source, target, table = split.source * size, (i + 1) * size, split.table
        if table < 0:
            poke(masks, 2 * i + 1, left)
            poke(masks, 2 * i + 2, differ(left, peek(masks, 0)))
            for k in range(steps):
                at = k * lanes
                factor = fma(s, along(quad, nodes, k, masks), z)
                store(W, target + at, mul(load(W, source + at, masks), factor), masks)
        else:
            on = peek(masks, split.on)
            left = meet(left, on)
            poke(masks, 2 * i + 1, left)
            poke(masks, 2 * i + 2, differ(left, on))
            for k in range(steps):
                at = k * lanes
                factor = fma(s, along(quad, nodes, k, masks), z)
                others = mul(factor, along_either(on, tables, table, table + stride, k))
                store(W, target + at, mul(load(W, source + at, masks), others), masks)


@inlined
def _turn(codes: Any, splits: Any, tree: Any, tables: Any, quad: Any, W: Any, phi: Any, steps: int, masks: Any) -> None:
    """Contributions and values of the splits between two leaves."""
    begin, upper, fresh, end, nodes = tree.begin, tree.upper, tree.fresh, tree.size, tree.quad
    lanes, stride = width(masks), _stride(tree)
    size = steps * lanes
    for i in range(upper, fresh):
        split = peek(splits, begin + i)
        s, z = _edge(split, masks), -split.edge_lo
        own = mul(pick(_goes_left(codes, split, masks), split.hi, split.lo), split.difference)
        mean = split.value - split.lo * split.difference
        source, target = split.source * size, (i + 1) * size
        total = first(split.start, masks)
        for k in range(steps):
            at = k * lanes
            t = along(quad, nodes, k, masks)
            total = fma(load(W, source + at, masks), fma(s, t, z), total)
            store(W, target + at, fma(own, t, mean), masks)
        _add(phi, split, total, own, masks)
    for i in range(fresh, end):
        split = peek(splits, begin + i)
        s, z, own_z, table = _edge(split, masks), -split.edge_lo, -split.lo, split.table
        on = peek(masks, split.on)
        left = meet(_goes_left(codes, split, masks), on)
        own, value, difference = pick(left, split.hi, split.lo), split.value, split.difference
        source, target = split.source * size, (i + 1) * size
        earlier, start = _constants(tables, table, stride, on, left)
        total = first(start, masks)
        for k in range(steps):
            at = k * lanes
            t = along(quad, nodes, k, masks)
            inverse = along_either(on, tables, table, table + stride, k)
            others = mul(mul(load(W, source + at, masks), fma(s, t, z)), inverse)
            share = mul(fma(own, t, own_z), inverse)
            total = fma(others, fma(earlier, share, own), total)
            store(W, target + at, fma(share, difference, value), masks)
        _add(phi, split, total, difference, masks)


@inlined
def _up(splits: Any, tree: Any, tables: Any, quad: Any, W: Any, phi: Any, steps: int, masks: Any) -> None:
    """Contributions and values of the upper splits, children first; values take the place of products in ``W``."""
    begin, upper, nodes = tree.begin, tree.upper, tree.quad
    lanes, stride = width(masks), _stride(tree)
    size = steps * lanes
    for i in range(upper - 1, -1, -1):
        split = peek(splits, begin + i)
        left = peek(masks, 2 * i + 1)
        own, z, value, table = pick(left, split.hi, split.lo), -split.lo, split.value, split.table
        here, below_left, below_right = (i + 1) * size, split.left * size, split.right * size
        if table < 0:
            total = first(split.start, masks)
            if below_right == 0:
                for k in range(steps):
                    at = k * lanes
                    gap = sub(load(W, below_left + at, masks), value)
                    total = fma(load(W, here + at, masks), gap, total)
                    factor = fma(own, along(quad, nodes, k, masks), z)
                    store(W, here + at, fma(factor, gap, value), masks)
            else:
                for k in range(steps):
                    at = k * lanes
                    right = load(W, below_right + at, masks)
                    gap = sub(load(W, below_left + at, masks), right)
                    total = fma(load(W, here + at, masks), gap, total)
                    factor = fma(own, along(quad, nodes, k, masks), z)
                    store(W, here + at, fma(factor, gap, right), masks)
            _add(phi, split, total, own, masks)
        else:
            on = peek(masks, split.on)
            earlier, start = _constants(tables, table, stride, on, left)
            total = first(start, masks)
            for k in range(steps):
                at = k * lanes
                right = spread(value, masks) if below_right == 0 else load(W, below_right + at, masks)
                gap = sub(load(W, below_left + at, masks), right)
                factor = fma(own, along(quad, nodes, k, masks), z)
                share = mul(factor, along_either(on, tables, table, table + stride, k))
                others = mul(load(W, here + at, masks), gap)
                total = fma(others, fma(earlier, share, own), total)
                store(W, here + at, fma(share, gap, right), masks)
            _add(phi, split, total, np.float32(1), masks)


@compiled
def contribute(X: Any, out: Any, program: Tables, masks: Any) -> None:
    """Add the contributions of the rows ``X`` float64 [n, F] to ``out`` float64 [n, (F + 1) * classes].

    ``masks`` decides the shape of the computation, see ``models/trees/simd.py``. It has an entry for all rows and two
    for each split of the largest tree. All are written before they are read, since a tree's splits come parents first.
    """
    binning, splits, trees, tables, quad, targets = program
    lanes = width(masks)
    rows = 1 if one_row(masks) else lanes
    block = codes_of(binning, lanes)
    # Of W, a split's products are written before its children read them; of phi all is set for each block.
    W = _aligned(_workspace(trees, masks))
    phi = _aligned(len(targets) * lanes)
    sums = np.zeros(len(targets) * lanes, np.float64)
    poke(masks, 0, full(np.uint8(1), masks))
    for begin in range(0, len(X), rows):
        count = min(rows, len(X) - begin)
        encode(X[begin : begin + count], lanes, binning, block)
        phi[:] = 0
        sums[:] = 0
        for t in range(len(trees)):
            tree = peek(trees, t)
            steps = _steps(tree, masks)
            if one_row(masks) and steps == 1:
                # Compiled without the loops over steps.
                _tree(block.codes, splits, tree, tables, quad, W, phi, 1, masks)
            else:
                _tree(block.codes, splits, tree, tables, quad, W, phi, steps, masks)
            if tree.flush:
                _flush(phi, sums)
        for player in range(len(targets)):
            at = player * lanes
            if one_row(masks):
                out[begin, targets[player]] += sums[at : at + lanes].sum()
            else:
                for row in range(count):
                    out[begin + row, targets[player]] += sums[at + row]


@inlined
def _flush(phi: Any, sums: Any) -> None:
    for i in range(len(phi)):
        sums[i] += phi[i]
    phi[:] = 0


@inlined
def _workspace(trees: Any, masks: Any) -> int:
    largest = 0
    for t in range(len(trees)):
        tree = peek(trees, t)
        largest = max(largest, (tree.size + 1) * _steps(tree, masks) * width(masks))
    return largest
