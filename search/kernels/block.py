"""What a kernel needs of a search, under one address: unpacking fifty arrays takes longer than a short round.

A call from Python unpacks every array it is given. Where a kernel is called once per simulation with the same arrays,
one kernel writes down where they are, and others find them there again for next to nothing.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

__all__ = ["block_of", "words_of"]

_WORD = ir.IntType(64)


def words_of(like: tuple[Any, ...]) -> int:
    """Returns how many words a block of arrays and numbers, nested in named tuples, takes."""
    return _words(numba.typeof(like))


def _words(kind: Any) -> int:
    if isinstance(kind, types.BaseTuple):
        return sum(map(_words, kind))
    return 1 + kind.ndim if isinstance(kind, types.Array) else 1


def block_of(like: tuple[Any, ...]) -> tuple[Any, Any]:
    """Returns ``note(block, whole)`` and ``opened(block)`` for kernels: what was noted is what is opened.

    A block [W] int64 keeps none of the arrays: whoever holds it holds them, too, for as long as kernels read it. They
    are contiguous, and of the dtypes and dimensions of `like`.
    """
    kind = numba.typeof(like)

    @intrinsic
    def note(typing_context, block, whole):
        def generate(context, builder, signature, arguments):
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            _Words(context, builder, data).write(signature.args[1], arguments[1])
            return context.get_dummy_value()

        return (types.void(block, whole), generate) if whole == kind else None

    @intrinsic
    def opened(typing_context, block):
        def generate(context, builder, signature, arguments):
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            return _Words(context, builder, data).read(kind)

        return kind(block), generate

    return note, opened


class _Words:
    """Makes the code that writes or reads a block, word by word."""

    def __init__(self, context: Any, builder: Any, data: Any) -> None:
        self.context, self.builder, self.data, self.at = context, builder, data, 0

    def read(self, kind: Any) -> Any:
        """Returns the value of a type that begins at the next word."""
        context, builder = self.context, self.builder
        if isinstance(kind, types.BaseTuple):
            return context.make_tuple(builder, kind, [self.read(part) for part in kind])
        if isinstance(kind, types.Array):
            return self._array(kind)
        word = self.builder.load(self._next())
        if isinstance(kind, types.Boolean):
            return builder.icmp_signed("!=", word, _WORD(0))
        if kind == types.float64:
            return builder.bitcast(word, ir.DoubleType())
        assert kind == types.int64
        return word

    def write(self, kind: Any, value: Any) -> None:
        """Writes a value of a type into the next words."""
        builder = self.builder
        if isinstance(kind, types.BaseTuple):
            for at, part in enumerate(kind):
                self.write(part, builder.extract_value(value, at))
        elif isinstance(kind, types.Array):
            array = self.context.make_array(kind)(self.context, builder, value)
            builder.store(builder.ptrtoint(array.data, _WORD), self._next())
            for length in cgutils.unpack_tuple(builder, array.shape, kind.ndim):
                builder.store(length, self._next())
        elif kind == types.float64:
            builder.store(builder.bitcast(value, _WORD), self._next())
        else:
            assert kind in (types.int64, types.boolean)
            builder.store(builder.zext(value, _WORD) if kind == types.boolean else value, self._next())

    def _next(self) -> Any:
        self.at += 1
        return self.builder.gep(self.data, [_WORD(self.at - 1)])

    def _array(self, kind: Any) -> Any:
        context, builder = self.context, self.builder
        element = context.get_data_type(kind.dtype)
        data = builder.inttoptr(builder.load(self._next()), element.as_pointer())
        size = context.get_abi_sizeof(element)
        shape = [builder.load(self._next()) for _ in range(kind.ndim)]
        strides = [_WORD(size)]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        array = context.make_array(kind)(context, builder)
        arrayobj.populate_array(
            array,
            data,
            cgutils.pack_array(builder, shape, _WORD),
            cgutils.pack_array(builder, strides, _WORD),
            _WORD(size),
            None,
        )
        return array._getvalue()
