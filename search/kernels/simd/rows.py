"""Rows of eight numbers: what the rules of narrow nodes are written in, once for one search and for eight abreast.

A row holds a number for each of up to eight children of a node, a number is one for the node. Of one search, a row is
one vector register with the children side by side; of eight searches it is eight registers, one per child, with the
searches side by side. The same formula then compiles to either, and does the same sums in the same order: an answer
does not depend on how many searches ran beside it. (Left to the compiler, the children of a narrow node are taken one
by one, since its vector loops are unrolled for longer ones.)
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

from treegym.search.kernels.numeric import EXP_SERIES, LN2_HIGH, LN2_LOW, LOG2_E

__all__ = [
    "WIDE",
    "exponential",
    "fused",
    "larger",
    "largest",
    "number",
    "numbers",
    "place_of",
    "put",
    "read",
    "read_columns",
    "smaller",
    "smallest",
    "total",
    "where",
    "within",
]

WIDE = 8
_INT, _FLOAT, _BIT, _LONG = ir.IntType(32), ir.FloatType(), ir.IntType(1), ir.IntType(64)
_INTS, _FLOATS, _BITS = (ir.VectorType(kind, WIDE) for kind in (_INT, _FLOAT, _BIT))


class Kind(types.Type):
    """What a value is: a row or a number, of eight searches or of one, float32 or truth."""

    def __init__(self, *, row: bool, eight: bool, truth: bool = False) -> None:
        """Names the type."""
        self.row, self.eight, self.truth = row, eight, truth
        super().__init__(name=f"{'Row' if row else 'Number'}({'eight' if eight else 'one'}, {truth=})")

    def layout(self) -> Any:
        """Returns how LLVM holds the value."""
        if not self.row and not self.eight:
            return _BIT if self.truth else _FLOAT
        vector = _BITS if self.truth else _FLOATS
        return ir.ArrayType(vector, WIDE) if self.row and self.eight else vector

    def like(self, *, row: bool | None = None, truth: bool = False) -> Kind:
        """Returns the kind of the same searches."""
        return Kind(row=self.row if row is None else row, eight=self.eight, truth=truth)


@register_model(Kind)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Kind) -> None:
        super().__init__(manager, kind, kind.layout())


def _repeat(builder: Any, value: Any) -> Any:
    """Returns a vector of one value over and over."""
    vector = ir.VectorType(value.type, WIDE)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, value, _INT(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, None))


def _parts(builder: Any, value: Any, kind: Kind, wanted: Kind) -> list[Any]:
    """Returns the registers of a value; a number among rows counts for every child."""
    if kind.row:
        return [builder.extract_value(value, k) for k in range(WIDE)] if kind.eight else [value]
    if not wanted.row:
        return [value]
    return [value] * WIDE if kind.eight else [_repeat(builder, value)]


def _whole(builder: Any, parts: list[Any], kind: Kind) -> Any:
    """Returns the value that registers make up."""
    if len(parts) == 1:
        return parts[0]
    value = ir.Constant(kind.layout(), ir.Undefined)
    for k, part in enumerate(parts):
        value = builder.insert_value(value, part, k)
    return value


def _wider(kinds: list[Any]) -> Kind:
    """Returns the kind that values combine to, apart from truth."""
    return Kind(row=any(kind.row for kind in kinds), eight=kinds[0].eight)


def _elementwise(make: Callable[..., Any], *, truth: bool = False) -> Callable[..., Any]:
    """Returns what generates an operation on rows and numbers, register by register."""

    def generator(wanted: Kind) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            columns = [_parts(builder, a, kind, wanted) for a, kind in zip(arguments, signature.args, strict=True)]
            return _whole(builder, [make(builder, *parts) for parts in zip(*columns, strict=True)], wanted)

        return generate

    def typed(*kinds: Any) -> Any:
        wanted = _wider(list(kinds)).like(truth=truth)
        return wanted(*kinds), generator(wanted)

    return typed


def _call(builder: Any, name: str, arguments: list[Any]) -> Any:
    kind = arguments[0].type
    suffix = f"v{WIDE}f32" if kind == _FLOATS else "f32"
    function = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), arguments)


def _exponential(builder: Any, x: Any) -> Any:
    """e**x for x <= 88, by the polynomial of `numeric.exp_series` in an order of its own.

    Terms are taken in pairs, so that half as many steps wait for each other, and rounded once each.
    """

    def constant(value: Any) -> Any:
        return _repeat(builder, _FLOAT(float(value)))

    def plus(a: Any, b: Any, c: Any) -> Any:
        return _call(builder, "fma", [a, b, c])

    x = builder.select(builder.fcmp_ordered(">", x, constant(-87.0)), x, constant(-87.0))
    whole = _call(builder, "rint", [builder.fmul(x, constant(LOG2_E))])
    rest = plus(whole, constant(-LN2_HIGH), x)
    rest = plus(whole, constant(LN2_LOW), rest)
    square = builder.fmul(rest, rest)
    terms = [constant(term) for term in EXP_SERIES]
    high, middle, low = (plus(a, rest, b) for a, b in zip(terms[::2], terms[1::2], strict=True))
    series = plus(plus(high, square, middle), square, low)
    series = plus(series, square, builder.fadd(rest, constant(1.0)))
    power = builder.add(builder.fptosi(whole, _INTS), _repeat(builder, _INT(127)))
    power = builder.shl(power, _repeat(builder, _INT(23)))
    return builder.fmul(series, builder.bitcast(power, _FLOATS))


def _choose(builder: Any, symbol: str, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(symbol, a, b), a, b)


# No fast arithmetic: with one order of operations and no liberties, one search and eight agree to the last bit.
_OPERATIONS: dict[Any, Any] = {
    operator.add: _elementwise(lambda b, x, y: b.fadd(x, y)),
    operator.sub: _elementwise(lambda b, x, y: b.fsub(x, y)),
    operator.mul: _elementwise(lambda b, x, y: b.fmul(x, y)),
    operator.truediv: _elementwise(lambda b, x, y: b.fdiv(x, y)),
    operator.gt: _elementwise(lambda b, x, y: b.fcmp_ordered(">", x, y), truth=True),
    operator.eq: _elementwise(lambda b, x, y: b.fcmp_ordered("==", x, y), truth=True),
    operator.and_: _elementwise(lambda b, x, y: b.and_(x, y), truth=True),
}


def _register(symbol: Any, typed: Callable[..., Any]) -> None:
    @intrinsic
    def operation(typing_context, a, b):
        return typed(a, b)

    @overload(symbol)
    def operate(a, b):
        if isinstance(a, Kind) and isinstance(b, Kind):
            return lambda a, b: operation(a, b)
        return None


for _symbol, _typed in _OPERATIONS.items():
    _register(_symbol, _typed)


@intrinsic
def larger(typing_context, a, b):
    """Returns the larger of each two."""
    return _elementwise(lambda build, x, y: _choose(build, ">", x, y))(a, b)


@intrinsic
def smaller(typing_context, a, b):
    """Returns the smaller of each two."""
    return _elementwise(lambda build, x, y: _choose(build, "<", x, y))(a, b)


@intrinsic
def where(typing_context, condition, yes, no):
    """Returns `yes` where the condition holds, `no` elsewhere."""
    return _elementwise(lambda build, c, x, y: build.select(c, x, y))(condition, yes, no)


@intrinsic
def fused(typing_context, a, b, c):
    """Returns a * b + c, rounded once."""
    return _elementwise(lambda build, x, y, z: _call(build, "fma", [x, y, z]))(a, b, c)


@intrinsic
def exponential(typing_context, x):
    """Returns e**x of a row, for x <= 88."""
    return _elementwise(_exponential)(x)


@intrinsic
def number(typing_context, value, like):
    """Returns a float32 as the number of every search that `like` is of."""
    wanted = like.like(row=False)

    def generate(context, builder, signature, arguments):
        return _repeat(builder, arguments[0]) if wanted.eight else arguments[0]

    return wanted(types.float32, like), generate


def _folded(combine: Callable[[Any, Any, Any], Any]) -> Callable[[Any], Any]:
    """Returns what folds a row into a number: the second half onto the first, and so on, in both layouts."""

    def typed(row: Kind) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if row.eight:
                parts = _parts(builder, arguments[0], row, row)
                while len(parts) > 1:
                    half = len(parts) // 2
                    parts = [combine(builder, a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
                return parts[0]
            value, half = arguments[0], WIDE // 2
            while half:
                low, high = (
                    builder.shuffle_vector(
                        value, ir.Constant(value.type, ir.Undefined),
                        ir.Constant(ir.VectorType(_INT, half), list(range(start, start + half))),
                    )
                    for start in (0, half)
                )  # fmt: skip
                value = combine(builder, low, high)
                half //= 2
            return builder.extract_element(value, _INT(0))

        return row.like(row=False)(row), generate

    return typed


@intrinsic
def total(typing_context, row):
    """Returns the sum over the children."""
    return _folded(lambda build, x, y: build.fadd(x, y))(row)


@intrinsic
def largest(typing_context, row):
    """Returns the largest over the children."""
    return _folded(lambda build, x, y: _choose(build, ">", x, y))(row)


@intrinsic
def smallest(typing_context, row):
    """Returns the smallest over the children."""
    return _folded(lambda build, x, y: _choose(build, "<", x, y))(row)


@intrinsic
def place_of(typing_context, row, best):
    """Returns the first child whose entry equals `best` (0 where none does): int64 of one search, a number of eight."""
    kind = types.int64 if not row.eight else row.like(row=False)

    def generate(context, builder, signature, arguments):
        entries, wanted = _parts(builder, arguments[0], row, row), _parts(builder, arguments[1], best, row)
        same = [builder.fcmp_ordered("==", a, b) for a, b in zip(entries, wanted, strict=True)]
        if row.eight:
            found: Any = ir.Constant(_FLOATS, None)
            for k in reversed(range(WIDE)):
                found = builder.select(same[k], ir.Constant(_FLOATS, [float(k)] * WIDE), found)
            return found
        bits = builder.or_(builder.zext(builder.bitcast(same[0], ir.IntType(WIDE)), _LONG), _LONG(1 << WIDE))
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_LONG, [_LONG, _BIT]), "llvm.cttz.i64")
        return builder.and_(builder.call(count, [bits, _BIT(1)]), _LONG(WIDE - 1))

    return kind(row, best), generate


@intrinsic
def put(typing_context, array, value):
    """Writes the numbers of eight searches, whole numbers, into int32 ``array[:8]``."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        builder.store(builder.fptosi(arguments[1], _INTS), builder.bitcast(data, _INTS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(array, value), generate


@intrinsic
def numbers(typing_context, given):
    """Returns a float32 as the number of one search, the first eight of an array as those of eight."""
    kind = Kind(row=False, eight=isinstance(given, types.Array))

    def generate(context, builder, signature, arguments):
        return _at(context, builder, given, arguments[0], _LONG(0), _FLOATS) if kind.eight else arguments[0]

    return kind(given), generate


def _at(context: Any, builder: Any, array: Any, value: Any, index: Any, kind: Any) -> Any:
    """Returns what is at a flat index of an array, read as `kind`."""
    data = context.make_array(array)(context, builder, value).data
    found = builder.load(builder.bitcast(builder.gep(data, [index]), kind.as_pointer()))
    found.align = 4
    return found


@intrinsic
def read(typing_context, array, offset, like):
    """Returns the eight entries of `array` from a flat index on, or those from each of the eight in `offset` on.

    `array` is float32 or int32 of any shape; there must be room for eight entries behind every offset.
    """
    kind = like.like(row=True)
    integers = isinstance(array.dtype, types.Integer)

    def generate(context, builder, signature, arguments):
        starts = [arguments[1]]
        if kind.eight:
            starts = [_at(context, builder, offset, arguments[1], _LONG(k), _LONG) for k in range(WIDE)]
        rows = []
        for start in starts:
            row = _at(context, builder, array, arguments[0], start, _INTS if integers else _FLOATS)
            rows.append(builder.sitofp(row, _FLOATS) if integers else row)
        return _whole(builder, _transposed(builder, rows) if kind.eight else rows, kind)

    return kind(array, offset, like), generate


@intrinsic
def read_columns(typing_context, array, like):
    """Returns the first eight entries of a float32 array; of eight searches, eight for each child in turn."""
    kind = like.like(row=True)

    def generate(context, builder, signature, arguments):
        starts = range(0, WIDE * WIDE if kind.eight else WIDE, WIDE)
        return _whole(builder, [_at(context, builder, array, arguments[0], _LONG(k), _FLOATS) for k in starts], kind)

    return kind(array, like), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Returns the columns of eight vectors: pairs of rows, then of pairs, then of fours are interleaved."""

    def mixed(a: Any, b: Any, places: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(_INTS, places))

    pairs = []  # of rows a and b: a0 b0 a1 b1 a4 b4 .., and a2 b2 a3 b3 a6 b6 ..
    for a, b in zip(rows[::2], rows[1::2], strict=True):
        pairs.append((mixed(a, b, [0, 8, 1, 9, 4, 12, 5, 13]), mixed(a, b, [2, 10, 3, 11, 6, 14, 7, 15])))
    fours = []  # of pairs: the k-th and the (k + 4)-th entries of four rows
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        for a, b in zip(one, other, strict=True):
            fours.append(mixed(a, b, [0, 1, 8, 9, 4, 5, 12, 13]))
            fours.append(mixed(a, b, [2, 3, 10, 11, 6, 7, 14, 15]))
    halves = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    return [mixed(fours[k], fours[4 + k], places) for places in halves for k in range(4)]


@intrinsic
def within(typing_context, width):
    """Returns the row that is true for as many children as the number `width` says."""
    kind = width.like(row=True, truth=True)

    def generate(context, builder, signature, arguments):
        if not kind.eight:
            places = ir.Constant(_FLOATS, [float(k) for k in range(WIDE)])
            return builder.fcmp_ordered("<", places, _repeat(builder, arguments[0]))
        parts = [builder.fcmp_ordered(">", arguments[0], _repeat(builder, _FLOAT(float(k)))) for k in range(WIDE)]
        return _whole(builder, parts, kind)

    return kind(width), generate
