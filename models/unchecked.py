"""Access to the elements of arrays without a bounds check, for kernels in which the check would cost too much.

Kernels call :func:`peek` and :func:`poke`. Code generators of vector operations, such as those of
``models/trees/simd.py``, take the address of a vector from :func:`span` and touch nothing outside it. In the checked
build (``models/compiled.py``) all three raise IndexError out of bounds; nothing else in the project forms an address.
"""
# ruff: noqa: ARG001 (numba binds an intrinsic's parameters by name, used or not)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaTypeError
from numba.extending import intrinsic

from models.compiled import CHECKED


@intrinsic
def peek(typingctx: Any, array: Any, index: Any) -> Any:
    """Read ``array[index]`` of a contiguous array, index >= 0; a record is read as a reference to it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = span(context, builder, array, args[0], args[1], 1)
        if isinstance(array.dtype, types.Record):
            return builder.bitcast(address, context.get_value_type(array.dtype))
        return builder.load(address)

    return array.dtype(array, types.intp), codegen


@intrinsic
def poke(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write ``array[index] = value`` to a contiguous array, index >= 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], span(context, builder, array, args[0], args[1], 1))
        return context.get_dummy_value()

    return types.none(array, types.intp, array.dtype), codegen


def span(context: Any, builder: Any, array_type: Any, array: Any, index: Any, count: Any, alignment: int = 1) -> Any:
    """Return the address of ``array[index]`` for code that touches ``array[index : index + count]`` and no more.

    ``index`` is an LLVM int64, ``count`` an LLVM int64 or an int. ``alignment`` is what the code relies on, in bytes.
    The checked build raises IndexError where the array is shorter, and ValueError where the address is not aligned.
    """
    if array_type.layout != "C":
        raise NumbaTypeError(f"expected a C-contiguous array, got {array_type}: index it, or make it contiguous.")
    made = context.make_array(array_type)(context, builder, array)
    address = builder.gep(made.data, [index])
    if CHECKED:
        count = ir.Constant(index.type, count) if isinstance(count, int) else count
        negative = builder.icmp_signed("<", builder.or_(index, count), ir.Constant(index.type, 0))
        beyond = builder.icmp_signed(">", builder.add(index, count), made.nitems)
        _refuse(context, builder, builder.or_(negative, beyond), IndexError, "out of bounds")
        odd = builder.and_(builder.ptrtoint(address, index.type), ir.Constant(index.type, alignment - 1))
        misaligned = builder.icmp_unsigned("!=", odd, ir.Constant(index.type, 0))
        _refuse(context, builder, misaligned, ValueError, "not aligned")
    return address


def _refuse(context: Any, builder: Any, condition: Any, error: type[Exception], what: str) -> None:
    with cgutils.if_unlikely(builder, condition):
        message = f"a kernel's access to an array is {what}: a defect of the kernel, please report it."
        context.call_conv.return_user_exc(builder, error, (message,))
