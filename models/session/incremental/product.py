"""Matrix products of few rows with a fixed matrix, for numba: at the speed of a processor's multiply-adds.

A library's product wants hundreds of rows to be quick, and rounds a row in one way or another by how many stand beside
it. Here a tile of six rows by sixteen columns stays in registers while the whole depth passes, one row of the packed
matrix at a time (Goto and Van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008). So
every number is the same chain of multiply-adds, whatever rows come with it.
"""
# ruff: noqa: ARG001 (numba binds an intrinsic's parameters by name, used or not)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from models.compiled import compiled
from models.unchecked import span

ROWS: Final = 6
LANES: Final = 16
"""Rows of a tile, and columns of a panel: six AVX-512 registers, or twelve of AVX2, which has sixteen."""

PANELS: Final = 2 if "+avx512f" in (config.CPU_FEATURES or get_host_cpu_features()) else 1
"""Panels of a tile: with two, twelve of the 32 registers of AVX-512, half as many loads for a multiply-add."""

STEP: Final = 8
"""What lengths of vectors are a multiple of (:func:`dot`, :func:`add`, :func:`exponentiate`)."""

_BLOCKS: Final = (*[128] * (PANELS - 1), 64, 32, STEP)
"""Numbers of a vector that :func:`weigh` adds up in registers at once: the most first, fewer for what is left."""

_F32 = ir.FloatType()
_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_VECTOR = ir.VectorType(_F32, LANES)
_HALF = ir.VectorType(_F32, STEP)

_EXP: Final = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def packed(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Lay a matrix float32 [depth, wide] out in panels of 16 columns, the last filled up with zeros: flat float32."""
    depth, wide = matrix.shape
    matrix = np.pad(matrix, ((0, 0), (0, -wide % LANES)))
    return np.ascontiguousarray(matrix.reshape(depth, -1, LANES).swapaxes(0, 1), np.float32).ravel()


@compiled
def multiply(
    rows: Any, a: Any, a_at: Any, a_step: Any, b: Any, depth: Any, wide: Any, c: Any, c_at: Any, c_step: Any
) -> None:
    """Write to C [rows, wide] the product of A [rows, depth] and B, packed.

    Flat float32 arrays: row i of A begins at ``a_at + i * a_step``, of C at ``c_at + i * c_step``. Rows are rounded up
    to six, so A and C hold as many.
    """
    for panel in range(0, wide // LANES, PANELS):
        whole = (panel + PANELS) * LANES <= wide
        for row in range(0, rows, ROWS):
            a_row, c_row = a_at + row * a_step, c_at + row * c_step + panel * LANES
            if whole:
                _broad(a, a_row, a_step, b, panel * depth * LANES, depth, c, c_row, c_step)
            else:
                _narrow(a, a_row, a_step, b, panel * depth * LANES, depth, c, c_row, c_step)


def _tile(panels: int) -> Any:
    """Make what writes one tile of C: ROWS of A by so many panels of B. Nothing in it checks bounds."""

    @intrinsic
    def tile(
        typingctx: Any,
        a: Any,
        a_at: Any,
        a_step: Any,
        b: Any,
        b_at: Any,
        depth: Any,
        c: Any,
        c_at: Any,
        c_step: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a_type, b_type, c_type = (signature.args[place] for place in (0, 3, 6))
            a_value, a_at, a_step, b_value, b_at, depth, c_value, c_at, c_step = args

            def times(number: int, value: Any) -> Any:
                return builder.mul(value, ir.Constant(_I64, number))

            def rows(kind: Any, value: Any, first: Any, step: Any, count: Any) -> list[Any]:
                begins = [builder.add(first, times(row, step)) for row in range(ROWS)]
                return [span(context, builder, kind, value, begin, count) for begin in begins]

            left = rows(a_type, a_value, a_at, a_step, depth)
            right = span(context, builder, b_type, b_value, b_at, times(LANES * panels, depth))
            targets = rows(c_type, c_value, c_at, c_step, LANES * panels)
            before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            at, sums = builder.phi(_I64), [builder.phi(_VECTOR) for _ in range(ROWS * panels)]
            column = times(LANES, at)
            beside = [builder.add(column, times(LANES * panel, depth)) for panel in range(panels)]
            values = [_load(builder, builder.gep(right, [place]), _VECTOR) for place in beside]
            spread = [_spread(builder, builder.load(builder.gep(row, [at])), _VECTOR) for row in left]
            products = [(each, value) for each in spread for value in values]
            grown = [_fma(builder, *each, total) for each, total in zip(products, sums, strict=True)]
            following = builder.add(at, ir.Constant(_I64, 1))
            at.add_incoming(ir.Constant(_I64, 0), before)
            at.add_incoming(following, loop)
            for total, more in zip(sums, grown, strict=True):
                total.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
                total.add_incoming(more, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            for number, total in enumerate(grown):
                row, panel = divmod(number, panels)
                place = builder.gep(targets[row], [ir.Constant(_I64, LANES * panel)])
                builder.store(total, builder.bitcast(place, _VECTOR.as_pointer()), align=4)
            return context.get_dummy_value()

        index = types.intp
        return types.none(a, index, index, b, index, index, c, index, index), codegen

    return tile


_narrow, _broad = _tile(1), _tile(PANELS)


@intrinsic
def dot(typingctx: Any, a: Any, a_at: Any, b: Any, b_at: Any, count: Any) -> Any:
    """Return the product of two vectors of flat float32 arrays; ``count`` is a multiple of STEP, at least that."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = [_vector(context, builder, signature, args, at, args[4]) for at in (0, 2)]
        start: Any = ir.Constant(_I64, 0)
        whole: Any = ir.Constant(_F32, 0.0)
        for lanes in _BLOCKS[-2:]:
            vector, stop = ir.VectorType(_F32, lanes), builder.and_(args[4], ir.Constant(_I64, -lanes))
            total = cgutils.alloca_once(builder, vector)
            builder.store(ir.Constant(vector, [0.0] * lanes), total)
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(_I64, lanes), inc=True) as (at, _):
                x, y = (_load(builder, builder.gep(place, [at]), vector) for place in places)
                builder.store(_fma(builder, x, y, builder.load(total)), total)
            whole = _together(builder, "fadd", builder.load(total), whole)
            start = stop
        return whole

    return types.float32(a, types.intp, b, types.intp, types.intp), codegen


@intrinsic
def add(typingctx: Any, factor: Any, a: Any, a_at: Any, c: Any, c_at: Any, count: Any) -> Any:
    """Add ``factor`` times a vector of ``a`` to one of ``c``, flat float32; ``count`` as for :func:`dot`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (_vector(context, builder, signature, args, at, args[5]) for at in (1, 3))
        times = _spread(builder, args[0], _HALF)

        def step(at: Any, _nothing: Any) -> Any:
            where = builder.gep(target, [at])
            more = _fma(builder, times, _load(builder, builder.gep(source, [at]), _HALF), _load(builder, where, _HALF))
            builder.store(more, builder.bitcast(where, _HALF.as_pointer()), align=4)
            return None

        _along(builder, args[5], step, None)
        return context.get_dummy_value()

    return types.none(types.float32, a, types.intp, c, types.intp, types.intp), codegen


@intrinsic
def copy(typingctx: Any, a: Any, a_at: Any, c: Any, c_at: Any, count: Any) -> Any:
    """Write a vector of ``a`` over one of ``c``, flat float32; ``count`` as for :func:`dot`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (_vector(context, builder, signature, args, at, args[4]) for at in (0, 2))

        def step(at: Any, _nothing: Any) -> Any:
            where = builder.bitcast(builder.gep(target, [at]), _HALF.as_pointer())
            builder.store(_load(builder, builder.gep(source, [at]), _HALF), where, align=4)
            return None

        _along(builder, args[4], step, None)
        return context.get_dummy_value()

    return types.none(a, types.intp, c, types.intp, types.intp), codegen


@intrinsic
def clear(typingctx: Any, c: Any, c_at: Any, count: Any) -> Any:
    """Write zeros over a vector of flat float32; ``count`` as for :func:`dot`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector(context, builder, signature, args, 0, args[2])

        def step(at: Any, _nothing: Any) -> Any:
            where = builder.bitcast(builder.gep(target, [at]), _HALF.as_pointer())
            builder.store(ir.Constant(_HALF, [0.0] * STEP), where, align=4)
            return None

        _along(builder, args[2], step, None)
        return context.get_dummy_value()

    return types.none(c, types.intp, types.intp), codegen


@intrinsic
def weigh(
    typingctx: Any,
    weights: Any,
    weights_at: Any,
    places: Any,
    places_at: Any,
    count: Any,
    b: Any,
    b_at: Any,
    c: Any,
    c_at: Any,
    width: Any,
) -> Any:
    """Add to a vector of ``c`` each of ``count`` vectors of ``b`` times its weight, one after the other.

    Flat float32, ``places`` int64: vector j of b begins at ``b_at + places[j]``. ``width`` as ``count`` of :func:`dot`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        count, width = args[4], args[9]
        weights, places = (span(context, builder, kinds[at], args[at], args[at + 1], count) for at in (0, 2))
        target = _vector(context, builder, signature, args, 7, width)
        start: Any = ir.Constant(_I64, 0)
        for lanes in _BLOCKS:
            vector, stop = ir.VectorType(_F32, lanes), builder.and_(width, ir.Constant(_I64, -lanes))
            total = cgutils.alloca_once(builder, vector)
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(_I64, lanes), inc=True) as (at, _):
                where = builder.gep(target, [at])
                builder.store(_load(builder, where, vector), total)
                with cgutils.for_range(builder, count) as loop:
                    place = builder.add(builder.add(args[6], builder.load(builder.gep(places, [loop.index]))), at)
                    value = span(context, builder, kinds[5], args[5], place, lanes)
                    weight = _spread(builder, builder.load(builder.gep(weights, [loop.index])), vector)
                    more = _fma(builder, weight, _load(builder, value, vector), builder.load(total))
                    builder.store(more, total)
                builder.store(builder.load(total), builder.bitcast(where, vector.as_pointer()), align=4)
            start = stop
        return context.get_dummy_value()

    index = types.intp
    return types.none(weights, index, places, index, index, b, index, c, index, index), codegen


@intrinsic
def lift(typingctx: Any, a: Any, a_at: Any, b: Any, b_at: Any) -> Any:
    """Add LANES numbers of ``b`` to those of ``a``, flat float32, and return which are then positive: a bit each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, more = (_vector(context, builder, signature, args, at, LANES) for at in (0, 2))
        total = builder.fadd(_load(builder, target, _VECTOR), _load(builder, more, _VECTOR))
        builder.store(total, builder.bitcast(target, _VECTOR.as_pointer()), align=4)
        positive = builder.fcmp_ordered(">", total, ir.Constant(_VECTOR, [0.0] * LANES))
        return builder.zext(builder.bitcast(positive, ir.IntType(LANES)), _I64)

    return types.int64(a, types.intp, b, types.intp), codegen


@intrinsic
def lowest(typingctx: Any, bits: Any) -> Any:
    """Return the place of the lowest bit, of at least one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@intrinsic
def exponentiate(typingctx: Any, a: Any, a_at: Any, shift: Any, count: Any) -> Any:
    """Write ``exp(a - shift)`` over a vector of flat float32, none of which is above ``shift``, and return the sum.

    ``count`` as for :func:`dot`.

    By the polynomial of Cephes' expf (S. L. Moshier), to two units in the last place; 0 below exp(-87).
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, off = _vector(context, builder, signature, args, 0, args[3]), _spread(builder, args[2], _HALF)

        def same(value: float) -> Any:
            return ir.Constant(_HALF, [value] * STEP)

        def step(at: Any, total: Any) -> Any:
            where = builder.gep(source, [at])
            x = builder.fsub(_load(builder, where, _HALF), off)
            far = builder.fcmp_ordered("<", x, same(-87.0))
            x = builder.select(far, same(-87.0), x)
            floor = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_HALF, [_HALF]), f"llvm.floor.v{STEP}f32"
            )
            power = builder.call(floor, [_fma(builder, x, same(1.44269504088896341), same(0.5))])
            # ln 2 in two parts, the first of few bits, so that nothing is lost.
            rest = _fma(builder, power, same(-0.693359375), x)
            rest = _fma(builder, power, same(2.12194440e-4), rest)
            series = same(_EXP[0])
            for coefficient in _EXP[1:]:
                series = _fma(builder, series, rest, same(coefficient))
            series = _fma(builder, builder.fmul(series, rest), rest, builder.fadd(rest, same(1.0)))
            whole = ir.VectorType(_I32, STEP)
            exponent = builder.add(builder.fptosi(power, whole), ir.Constant(whole, [127] * STEP))
            exponent = builder.shl(exponent, ir.Constant(whole, [23] * STEP))
            result = builder.fmul(series, builder.bitcast(exponent, _HALF))
            result = builder.select(far, same(0.0), result)
            builder.store(result, builder.bitcast(where, _HALF.as_pointer()), align=4)
            return builder.fadd(total, result)

        return _together(builder, "fadd", _along(builder, args[3], step, same(0.0)), ir.Constant(_F32, 0.0))

    return types.float32(a, types.intp, types.float32, types.intp), codegen


@intrinsic
def largest(typingctx: Any, a: Any, a_at: Any, count: Any) -> Any:
    """Return the largest number of a vector of flat float32; ``count`` as for :func:`dot`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _vector(context, builder, signature, args, 0, args[2])

        def step(at: Any, most: Any) -> Any:
            x = _load(builder, builder.gep(source, [at]), _HALF)
            return builder.select(builder.fcmp_ordered(">", x, most), x, most)

        return _together(builder, "fmax", _along(builder, args[2], step, ir.Constant(_HALF, [-np.inf] * STEP)))

    return types.float32(a, types.intp, types.intp), codegen


def _along(builder: Any, count: Any, step: Callable[[Any, Any], Any], start: Any) -> Any:
    """Loop over half vectors; ``step`` gets the place and what it returned last, ``start`` at first."""
    before, loop, after = builder.block, builder.append_basic_block("along"), builder.append_basic_block("past")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(_I64)
    carried = builder.phi(start.type) if start is not None else None
    result = step(at, carried)
    following = builder.add(at, ir.Constant(_I64, STEP))
    at.add_incoming(ir.Constant(_I64, 0), before)
    at.add_incoming(following, loop)
    if carried is not None:
        carried.add_incoming(start, before)
        carried.add_incoming(result, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return result


def _together(builder: Any, how: str, vector: Any, *start: Any) -> Any:
    """Reduce a vector to one number, in any order of its lanes, but always the same."""
    kind = ir.FunctionType(_F32, [*(each.type for each in start), vector.type])
    name = f"llvm.vector.reduce.{how}.v{vector.type.count}f32"
    reduce = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(reduce, [*start, vector], fastmath=("reassoc", "nnan"))


def _vector(context: Any, builder: Any, signature: Any, args: Any, at: int, count: Any) -> Any:
    """Return the address of a vector: argument ``at`` is its array, the next where it begins in it."""
    return span(context, builder, signature.args[at], args[at], args[at + 1], count)


def _load(builder: Any, pointer: Any, kind: Any) -> Any:
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=4)


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    name = f"llvm.fma.v{x.type.count}f32"
    return builder.call(
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type] * 3), name), [x, y, z]
    )


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    empty = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count))
