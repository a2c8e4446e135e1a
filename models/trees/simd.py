"""Vectors of float32 for numba, so that one kernel's source serves one row, 32 rows and 64 rows.

LLVM does not vectorise the loops of the TreeSHAP kernel by itself: the kernel reads and writes one workspace, and the
compiler cannot prove that the addresses do not overlap. So the kernel is written with explicit vectors. They are LLVM's
generic vectors of any length, which LLVM splits into the processor's registers (AVX-512, AVX2, NEON).

The dtype of the mask array determines the *shape* of a computation; numba compiles a kernel for each shape:

===========  ===============  =======================================  ==================================
mask dtype   a mask holds     the lanes of a vector are                a quadrature value is
===========  ===============  =======================================  ==================================
uint8        one row (0, 1)   8 quadrature nodes of the row            a vector
uint32       32 rows, 1 bit   32 rows                                  a scalar, the same for all rows
uint64       64 rows, 1 bit   64 rows                                  a scalar, the same for all rows
===========  ===============  =======================================  ==================================

Arithmetic accepts vectors and float32 scalars; a scalar is copied to all lanes. Bounds are checked in the
checked build only (``models/unchecked.py``).
"""
# ruff: noqa: ARG001 (numba binds the parameters of an intrinsic by name, even if they are not used)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

from models.unchecked import span

ROW_LANES = 8
_F32 = ir.FloatType()
_INDEX = ir.IntType(32)


class Vector(types.Type):
    """The numba type of ``lanes`` float32 values held in registers."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes} x float32)")


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_F32, fe_type.lanes))


def _lanes(mask: types.Integer) -> int:
    return ROW_LANES if mask.bitwidth == 8 else int(mask.bitwidth)


def _aligned(vector: Vector) -> int:
    """Return the alignment of a vector's address in bytes: the size of the vector, at most a cache line."""
    return min(4 * vector.lanes, 64)


def _vector(mask: types.Integer) -> Vector:
    return Vector(_lanes(mask))


def _spread(builder: Any, value: Any, lanes: int) -> Any:
    if isinstance(value.type, ir.VectorType):
        return value
    vector = ir.VectorType(value.type, lanes)
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INDEX, lanes), [0] * lanes))


def _joined(*operands: Any) -> Any:
    """Return the type of an elementwise result: a vector if any operand is one."""
    return next((each for each in operands if isinstance(each, Vector)), types.float32)


def _lift(builder: Any, result: Any, values: Any) -> list[Any]:
    return [_spread(builder, value, result.lanes) if isinstance(result, Vector) else value for value in values]


def _select(builder: Any, condition: Any, x: Any, y: Any) -> Any:
    """Select without a branch, because a processor cannot predict the conditions of these kernels."""
    selected = builder.select(condition, x, y)
    selected.set_metadata("unpredictable", builder.module.add_metadata([]))
    return selected


@intrinsic
def width(typingctx: Any, masks: Any) -> Any:
    """Return the number of lanes of a vector in the shape of ``masks``, a compile-time constant."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, _lanes(masks.dtype))

    return types.intp(masks), codegen


@intrinsic
def one_row(typingctx: Any, masks: Any) -> Any:
    """Return whether the lanes of a vector are quadrature nodes of one row, a compile-time constant."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, masks.dtype.bitwidth == 8)

    return types.boolean(masks), codegen


@intrinsic
def load(typingctx: Any, array: Any, index: Any, masks: Any) -> Any:
    """Read the vector at ``array[index:]``. Its address must be aligned to the size of the vector, or to 64 bytes."""
    result = _vector(masks.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = span(context, builder, array, args[0], args[1], result.lanes, _aligned(result))
        pointer = context.get_value_type(result).as_pointer()
        return builder.load(builder.bitcast(address, pointer), align=_aligned(result))

    return result(array, types.intp, masks), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any, masks: Any) -> Any:
    """Write a vector, or a scalar in all lanes, to ``array[index:]``, with the alignment of :func:`load`."""
    vector = _vector(masks.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = span(context, builder, array, args[0], args[1], vector.lanes, _aligned(vector))
        pointer = context.get_value_type(vector).as_pointer()
        value = _spread(builder, args[2], vector.lanes)
        builder.store(value, builder.bitcast(address, pointer), align=_aligned(vector))
        return context.get_dummy_value()

    return types.none(array, types.intp, value, masks), codegen


@intrinsic
def along(typingctx: Any, array: Any, start: Any, step: Any, masks: Any) -> Any:
    """Read quadrature values: ``array[start + step]`` for many rows, ``array[start + 8 * step:][:8]`` for one row."""
    one_row = masks.dtype.bitwidth == 8
    result = _vector(masks.dtype) if one_row else types.float32

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        step = builder.mul(args[2], ir.Constant(args[2].type, ROW_LANES)) if one_row else args[2]
        address = span(context, builder, array, args[0], builder.add(args[1], step), ROW_LANES if one_row else 1)
        pointer = context.get_value_type(result).as_pointer()
        return builder.load(builder.bitcast(address, pointer), align=4)

    return result(array, types.intp, types.intp, masks), codegen


@intrinsic
def along_either(typingctx: Any, mask: Any, array: Any, start: Any, other: Any, step: Any) -> Any:
    """Read a vector of quadrature values: from ``start`` in the rows of ``mask``, from ``other`` in the other rows."""
    result = _vector(mask)
    one_row = mask.bitwidth == 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask, array_value, start, other, step = args
        if one_row:
            on = builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0))
            step = builder.mul(step, ir.Constant(step.type, ROW_LANES))
            at = builder.add(_select(builder, on, start, other), step)
            address = span(context, builder, array, array_value, at, ROW_LANES)
            return builder.load(builder.bitcast(address, context.get_value_type(result).as_pointer()), align=4)
        addresses = [span(context, builder, array, array_value, builder.add(at, step), 1) for at in (start, other)]
        values = [_spread(builder, builder.load(address), result.lanes) for address in addresses]
        return builder.select(builder.bitcast(mask, ir.VectorType(ir.IntType(1), result.lanes)), *values)

    return result(mask, array, types.intp, types.intp, types.intp), codegen


@intrinsic
def first(typingctx: Any, value: Any, masks: Any) -> Any:
    """Return the vector from which a sum over quadrature nodes starts: ``value`` in each row.

    For one row, whose lanes are added in the end, only the first lane has the value and the others are zero.
    """
    result = _vector(masks.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if masks.dtype.bitwidth != 8:
            return _spread(builder, args[0], result.lanes)
        zeros = ir.Constant(context.get_value_type(result), [0.0] * result.lanes)
        return builder.insert_element(zeros, args[0], ir.Constant(_INDEX, 0))

    return result(value, masks), codegen


@intrinsic
def spread(typingctx: Any, value: Any, masks: Any) -> Any:
    """Return the vector with ``value`` in every lane."""
    result = _vector(masks.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _spread(builder, args[0], result.lanes)

    return result(value, masks), codegen


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """Return ``x * y + z``, rounded once if the processor has fused multiply-add."""
    result = _joined(x, y, z)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        operands = _lift(builder, result, args)
        kind = operands[0].type
        name = f"llvm.fmuladd.v{result.lanes}f32" if isinstance(result, Vector) else "llvm.fmuladd.f32"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, operands)

    return result(x, y, z), codegen


@intrinsic
def mul(typingctx: Any, x: Any, y: Any) -> Any:
    """Return ``x * y``."""
    result = _joined(x, y)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*_lift(builder, result, args))

    return result(x, y), codegen


@intrinsic
def sub(typingctx: Any, x: Any, y: Any) -> Any:
    """Return ``x - y``."""
    result = _joined(x, y)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(*_lift(builder, result, args))

    return result(x, y), codegen


@intrinsic
def pick(typingctx: Any, mask: Any, x: Any, y: Any) -> Any:
    """Return ``x`` in the rows of ``mask`` and ``y`` in the other rows."""
    one_row = mask.bitwidth == 8
    result = _joined(x, y) if one_row else _vector(mask)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if one_row:
            chosen = builder.icmp_unsigned("!=", args[0], ir.Constant(args[0].type, 0))
        else:
            chosen = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), result.lanes))
        return _select(builder, chosen, *_lift(builder, result, args[1:]))

    return result(mask, x, y), codegen


@intrinsic
def choose(typingctx: Any, condition: Any, x: Any, y: Any) -> Any:
    """Return ``x if condition else y`` without a branch; both numbers have the same type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _select(builder, *args)

    return x(types.boolean, x, x), codegen


@intrinsic
def below(typingctx: Any, codes: Any, index: Any, threshold: Any, masks: Any) -> Any:
    """Return the mask of the rows whose code in ``codes[index:]`` is at most ``threshold``."""
    mask = masks.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = span(context, builder, codes, args[0], args[1], 1 if mask.bitwidth == 8 else mask.bitwidth)
        if mask.bitwidth == 8:
            return builder.zext(builder.icmp_unsigned("<=", builder.load(address), args[2]), args[2].type)
        vector = ir.VectorType(ir.IntType(8), mask.bitwidth)
        values = builder.load(builder.bitcast(address, vector.as_pointer()), align=1)
        hits = builder.icmp_unsigned("<=", values, _spread(builder, args[2], mask.bitwidth))
        return builder.bitcast(hits, ir.IntType(mask.bitwidth))

    return mask(codes, types.intp, types.uint8, masks), codegen


@intrinsic
def full(typingctx: Any, flag: Any, masks: Any) -> Any:
    """Return the mask of all rows if ``flag`` is 1, and of no row if ``flag`` is 0."""
    mask = masks.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if mask.bitwidth == 8:
            return args[0]
        kind = ir.IntType(mask.bitwidth)
        return builder.sub(ir.Constant(kind, 0), builder.zext(args[0], kind))

    return mask(types.uint8, masks), codegen


@intrinsic
def meet(typingctx: Any, x: Any, y: Any) -> Any:
    """Return the rows in both masks. Numba's own ``&`` would return a wider integer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(*args)

    return x(x, y), codegen


@intrinsic
def differ(typingctx: Any, x: Any, y: Any) -> Any:
    """Return the rows in exactly one of the two masks."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.xor(*args)

    return x(x, y), codegen


@intrinsic
def blend(typingctx: Any, mask: Any, array: Any, x: Any, y: Any, target: Any) -> Any:
    """Write to ``array[target:]`` the values of ``array[x:]`` in the rows of ``mask``, else those of ``array[y:]``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask_value, array_value, *places = args
        kind = ir.VectorType(context.get_value_type(array.dtype), mask.bitwidth)
        pointers = [
            builder.bitcast(span(context, builder, array, array_value, place, mask.bitwidth), kind.as_pointer())
            for place in places
        ]
        values = [builder.load(pointer, align=1) for pointer in pointers[:2]]
        chosen = builder.select(builder.bitcast(mask_value, ir.VectorType(ir.IntType(1), mask.bitwidth)), *values)
        builder.store(chosen, pointers[2], align=1)
        return context.get_dummy_value()

    return types.none(mask, array, types.intp, types.intp, types.intp), codegen
