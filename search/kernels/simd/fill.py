"""Filling a new node whose eight slots stand side by side: all of them at once, no loop and no branch within."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from treegym.search.kernels.numeric import FAR, LEAST, inlined
from treegym.search.kernels.simd.rows import (
    WIDE,
    exponential,
    larger,
    largest,
    number,
    numbers,
    read,
    total,
    where,
    within,
)
from treegym.search.tree import EMPTY

__all__ = ["all_true", "fill_eight"]

_BYTE, _INT, _LONG, _FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT, WIDE), ir.VectorType(_FLOAT, WIDE)


@inlined
def fill_eight(tree, node, logits, start, width):
    """Fills a node of a tree of eight slots from ``logits[start : start + width]``, all legal; otherwise `fill_dense`.

    There must be room for eight logits behind `start`. Returns False, and leaves the node as it was, where
    `fill_dense` has to look: for a NaN, for +inf, and for -inf alone.
    """
    many = numbers(np.float32(width))
    zero, far = number(np.float32(0.0), many), number(-FAR, many)
    inside = within(many)
    given = where(inside, read(logits, start, many), far)
    if not _sound(given):
        return False
    weight = where(inside, exponential(given - largest(given)), zero)
    least = number(LEAST, many)
    _put_slots(tree, node, larger(weight * (number(np.float32(1.0), many) / total(weight)), least))
    tree.width[node] = width
    return True


@intrinsic
def all_true(typing_context, flags):
    """Returns whether the first eight entries of an array of truths hold."""

    def generate(context, builder, signature, arguments):
        data = _pointer(context, builder, flags, arguments[0], _LONG(0), _LONG)
        given = builder.load(data)
        given.align = 1
        return builder.icmp_unsigned("==", given, _LONG(int.from_bytes(bytes([1] * WIDE), "little")))

    return types.boolean(flags), generate


@intrinsic
def _sound(typing_context, row):
    """Returns whether no entry is NaN or +inf, and one lies above -FAR; by bits, see `numeric.unusable`."""

    def constant(value: int) -> Any:
        return ir.Constant(_INTS, [value] * WIDE)

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], _INTS)
        size = builder.and_(bits, constant(0x7FFFFFFF))
        infinity = builder.icmp_signed("==", bits, constant(0x7F800000))
        wrong = builder.or_(builder.icmp_signed(">", size, constant(0x7F800000)), infinity)
        lowest = int((-FAR).view(np.int32))
        some = builder.icmp_unsigned("<", bits, constant(lowest & 0xFFFFFFFF))  # of negative ones, the larger has less
        none_wrong = builder.icmp_unsigned("==", builder.bitcast(wrong, _BYTE), _BYTE(0))
        return builder.and_(none_wrong, builder.icmp_unsigned("!=", builder.bitcast(some, _BYTE), _BYTE(0)))

    return types.boolean(row), generate


@intrinsic
def _put_slots(typing_context, tree, node, prior):
    """Writes the prior of a node's eight slots, numbers them as actions, and clears the rest."""
    names = tree.fields
    short = ir.VectorType(ir.IntType(16), WIDE)
    written: dict[str, Any] = {
        "visits": ir.Constant(_INTS, None),
        "q": ir.Constant(_FLOATS, None),
        "child": ir.Constant(_INTS, [EMPTY] * WIDE),
        "action": ir.Constant(short, list(range(WIDE))),
    }

    def generate(context, builder, signature, arguments):
        first = builder.mul(arguments[1], _LONG(WIDE))
        for name, value in {"prior": arguments[2], **written}.items():
            place = names.index(name)
            array = builder.extract_value(arguments[0], place)
            data = _pointer(context, builder, tree.types[place], array, first, value.type)
            builder.store(value, data).align = value.type.element.get_abi_size(context.target_data)
        return context.get_dummy_value()

    return types.void(tree, types.int64, prior), generate


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, pointee: Any) -> Any:
    """Returns a pointer to a flat index of an array, seen as `pointee`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())
