"""Small dense layers for compiled models: a block of outputs stays in vector registers over all rows of weights.

Left to the compiler, a loop over a small layer becomes one long chain of additions, or no vectors at all. Here a block
of 16 or 8 outputs is one vector value and four sums run side by side. A layer is made for its sizes: where they are
known only when it runs, working out addresses takes as long as a small layer itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from treegym.errors import ConfigError

__all__ = ["ACTIVATIONS", "dense_layer", "dot_product"]

_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_SUMS = 4  # as many additions are under way at once


def _blocks(outputs: int) -> Iterator[tuple[int, Any]]:
    """Yields the blocks that columns are taken in: where one starts, and its type."""
    start = 0
    for width in (16, 8, 1):
        while start + width <= outputs:
            yield start, ir.VectorType(_FLOAT, width) if width > 1 else _FLOAT
            start += width


def _place(builder: Any, data: Any, index: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _load(builder: Any, data: Any, index: Any, kind: Any) -> Any:
    value = builder.load(_place(builder, data, index, kind))
    value.align = 4
    return value


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """Returns a vector of one number over and over."""
    if kind == _FLOAT:
        return value
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None))


def _relu(builder: Any, x: Any) -> Any:
    zero = ir.Constant(x.type, None)
    return builder.select(builder.fcmp_ordered(">", x, zero), x, zero)


def _softsign(builder: Any, x: Any) -> Any:
    zero = ir.Constant(x.type, None)
    size = builder.select(builder.fcmp_ordered("<", x, zero), builder.fsub(zero, x), x)
    return builder.fdiv(x, builder.fadd(size, _spread(builder, _FLOAT(1.0), x.type)))


ACTIVATIONS: dict[str | None, Callable[[Any, Any], Any]] = {None: lambda _, x: x, "relu": _relu, "softsign": _softsign}


def _block(builder: Any, kind: Any, inputs: int, stride: int, x: Any, weights: Any, start: Any) -> Any:
    """Returns a block of ``start + x @ weights``, whose rows are `stride` apart."""
    zero = ir.Constant(kind, None)
    sums = [cgutils.alloca_once_value(builder, start if k == 0 else zero) for k in range(_SUMS)]

    def add_row(row: Any, total: Any) -> None:
        weight = _load(builder, weights, builder.mul(row, _INT64(stride)), kind)
        product = builder.fmul(_spread(builder, _load(builder, x, row, _FLOAT), kind), weight, flags=("contract",))
        builder.store(builder.fadd(product, builder.load(total), flags=("contract",)), total)

    whole = inputs - inputs % _SUMS
    with cgutils.for_range_slice(builder, _INT64(0), _INT64(whole), _INT64(_SUMS), _INT64) as (row, _):
        for k in range(_SUMS):
            add_row(builder.add(row, _INT64(k)), sums[k])
    for row in range(whole, inputs):
        add_row(_INT64(row), sums[row % _SUMS])
    a, b, c, d = (builder.load(total) for total in sums)
    return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))


@functools.cache
def dense_layer(inputs: int, outputs: int, activation: str | None = None) -> Any:
    """Returns ``layer(x, params, weights, bias, out)`` for compiled models; it writes activation(x W + b) into `out`.

    x, params and out are contiguous float32; `weights` and `bias` say where in `params` W [inputs, outputs], row by
    row, and b [outputs] start; a layer with a negative `bias` has none. Nothing is checked when it runs.
    """
    if inputs < 1 or outputs < 1:
        raise ConfigError(f"a dense layer has {inputs} inputs and {outputs} outputs; at least 1 of each is needed")
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation is {activation!r}; known are {list(ACTIVATIONS)}")

    @intrinsic
    def layer(typing_context, x, params, weights, bias, out):
        signature = types.void(x, params, types.int64, types.int64, out)

        def generate(context, builder, signature, arguments):
            given, table, target = (
                context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1, 4)
            )
            nothing = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(_FLOAT, outputs), None))
            none = builder.bitcast(nothing, _FLOAT.as_pointer())
            has_bias = builder.icmp_signed(">=", arguments[3], _INT64(0))
            start = builder.select(has_bias, builder.gep(table, [arguments[3]]), none)
            first = builder.gep(table, [arguments[2]])
            for column, kind in _blocks(outputs):
                at = builder.gep(first, [_INT64(column)])
                found = _block(builder, kind, inputs, outputs, given, at, _load(builder, start, _INT64(column), kind))
                value = ACTIVATIONS[activation](builder, found)
                builder.store(value, _place(builder, target, _INT64(column), kind)).align = 4
            return context.get_dummy_value()

        return signature, generate

    return layer


@functools.cache
def dot_product(length: int) -> Any:
    """Returns ``product(x, params, weights)`` for compiled models: x times the `length` numbers from `weights` on."""

    @intrinsic
    def product(typing_context, x, params, weights):
        signature = types.float32(x, params, types.int64)

        def generate(context, builder, signature, arguments):
            given, table = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1))
            first = builder.gep(table, [arguments[2]])
            sums: dict[Any, Any] = {}
            for at, kind in _blocks(length):
                a, b = _load(builder, given, _INT64(at), kind), _load(builder, first, _INT64(at), kind)
                term = builder.fmul(a, b, flags=("contract",))
                sums[kind] = builder.fadd(sums[kind], term, flags=("contract",)) if kind in sums else term
            total: Any = _FLOAT(0.0)
            for kind, value in sums.items():
                total = builder.fadd(total, value if kind == _FLOAT else _sum(builder, value))
            return total

        return signature, generate

    return product


def _sum(builder: Any, vector: Any) -> Any:
    """Returns the sum of a vector's entries, added up in pairs."""
    kind = ir.FunctionType(_FLOAT, [_FLOAT, vector.type])
    add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{vector.type.count}f32")
    return builder.call(add, [_FLOAT(0.0), vector], fastmath=("reassoc",))
