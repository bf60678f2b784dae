"""Small dense layers for compiled models: a block of outputs stays in vector registers over all rows of weights.

Left to the compiler, a loop over a small layer becomes one long chain of additions, or no vectors at all. Here a block
of 16 or 8 outputs is one vector value and four sums run side by side. Columns: O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["dense", "dot"]

_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_SUMS = 4  # as many additions are under way at once
# sums keep the order they are written in: reassociated they would become one chain again
_ORDERED = {"nnan", "nsz", "arcp", "contract"}


def _ordered(function: Callable[..., Any]) -> Any:
    return numba.njit(fastmath=_ORDERED, nogil=True, error_model="numpy", forceinline=True, _nrt=False)(function)


def _load(builder: Any, data: Any, index: Any, vector: Any) -> Any:
    value = builder.load(builder.bitcast(builder.gep(data, [index]), vector.as_pointer()))
    value.align = 4
    return value


def _add_product(builder: Any, total: Any, a: Any, b: Any) -> None:
    """Adds a * b to the sum kept at `total`."""
    product = builder.fmul(a, b, flags=("contract",))
    builder.store(builder.fadd(product, builder.load(total), flags=("contract",)), total)


@intrinsic(prefer_literal=True)
def _block(typing_context, x, weights, bias, out, column, lanes, relu):  # type: ignore[no-untyped-def]
    """Writes ``out[column : column + lanes]``; `lanes` is a constant."""
    signature = types.void(x, weights, bias, out, column, lanes, relu)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        arrays = [
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(signature.args[:4], arguments[:4], strict=True)
        ]
        inputs, table, start, target = (array.data for array in arrays)
        column, width = arguments[4], signature.args[5].literal_value
        vector = ir.VectorType(_FLOAT, width)
        zero, undefined = ir.Constant(vector, None), ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        rows, stride = builder.extract_value(arrays[0].shape, 0), builder.extract_value(arrays[1].shape, 1)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(_SUMS)]
        builder.store(_load(builder, start, column, vector), sums[0])

        def add_row(row: Any, total: Any) -> None:
            one = builder.insert_element(undefined, builder.load(builder.gep(inputs, [row])), ir.IntType(32)(0))
            many = builder.shuffle_vector(one, undefined, everywhere)
            at = builder.add(builder.mul(row, stride), column)
            _add_product(builder, total, many, _load(builder, table, at, vector))

        whole = builder.and_(rows, _INT64(-_SUMS))
        with cgutils.for_range_slice(builder, _INT64(0), whole, _INT64(_SUMS), _INT64) as (row, _):
            for k in range(_SUMS):
                add_row(builder.add(row, _INT64(k)), sums[k])
        with cgutils.for_range_slice(builder, whole, rows, _INT64(1), _INT64) as (row, _):
            add_row(row, sums[0])
        a, b, c, d = (builder.load(total) for total in sums)
        found = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        positive = builder.select(builder.fcmp_ordered(">", found, zero), found, zero)
        found = builder.select(context.cast(builder, arguments[6], signature.args[6], types.boolean), positive, found)
        place = builder.bitcast(builder.gep(target, [column]), vector.as_pointer())
        builder.store(found, place).align = 4
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def _part(typing_context, x, y, start, lanes):  # type: ignore[no-untyped-def]
    """Returns the dot product of `lanes` (a constant) entries from `start` on."""
    signature = types.float32(x, y, start, lanes)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        width = signature.args[3].literal_value
        vector = ir.VectorType(_FLOAT, width)
        a, b = (
            _load(builder, context.make_array(kind)(context, builder, array).data, arguments[2], vector)
            for kind, array in zip(signature.args[:2], arguments[:2], strict=True)
        )
        kind = ir.FunctionType(_FLOAT, [_FLOAT, vector])
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{width}f32")
        return builder.call(add, [ir.Constant(_FLOAT, 0.0), builder.fmul(a, b)], fastmath=("reassoc",))

    return signature, generate


@_ordered
def dense(x, weights, bias, out, relu):  # type: ignore[no-untyped-def]
    """Writes ``x @ weights + bias`` into `out`, negative entries as 0 when `relu`.

    float32 and contiguous: x [I], weights [I, O], bias [O or more], out [O].
    """
    columns = weights.shape[1]
    column = 0
    while column + 16 <= columns:
        _block(x, weights, bias, out, column, 16, relu)
        column += 16
    while column + 8 <= columns:
        _block(x, weights, bias, out, column, 8, relu)
        column += 8
    for c in range(column, columns):
        total = bias[c]
        for i in range(len(x)):
            total += x[i] * weights[i, c]
        out[c] = max(total, np.float32(0.0)) if relu else total


@_ordered
def dot(x, y):  # type: ignore[no-untyped-def]
    """Returns ``x @ y``; float32 and contiguous, y [I or more]."""
    total = np.float32(0.0)
    at = 0
    while at + 16 <= len(x):
        total += _part(x, y, at, 16)
        at += 16
    while at + 8 <= len(x):
        total += _part(x, y, at, 8)
        at += 8
    for i in range(at, len(x)):
        total += x[i] * y[i]
    return total
