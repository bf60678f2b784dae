"""What a kernel needs of a search, under one address: unpacking fifty arrays takes longer than a short round.

A call from Python unpacks every array it is given. Where a kernel is called once per simulation with the same arrays,
`packed` writes down where they are, and `opened` finds them there again, inside the kernel, for next to nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

__all__ = ["open_as", "packed"]

_WORD = ir.IntType(64)


def packed(whole: tuple[Any, ...]) -> np.ndarray:
    """Returns an int64 array that tells kernels of arrays and numbers, nested in named tuples.

    It keeps none of them: whoever holds it holds them, too, for as long as kernels read it.
    """
    return np.array(list(_words(whole)), np.int64)


def _words(part: Any) -> Any:
    if isinstance(part, tuple):
        for inner in part:
            yield from _words(inner)
    elif isinstance(part, np.ndarray):
        assert part.flags.c_contiguous
        yield part.ctypes.data
        yield from part.shape
    elif isinstance(part, float):
        yield struct.unpack("<q", struct.pack("<d", part))[0]
    else:
        yield int(part)


def open_as(like: tuple[Any, ...]) -> Any:
    """Returns ``opened(block)`` for kernels, which gives what was packed; `like` has the same dtypes and dimensions."""
    kind = numba.typeof(like)

    @intrinsic
    def opened(typing_context, block):
        def generate(context, builder, signature, arguments):
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            return _Reader(context, builder, data).read(kind)

        return kind(block), generate

    return opened


class _Reader:
    """Makes the code that reads a block, word by word."""

    def __init__(self, context: Any, builder: Any, data: Any) -> None:
        self.context, self.builder, self.data, self.at = context, builder, data, 0

    def read(self, kind: Any) -> Any:
        """Returns the value of a type that begins at the next word."""
        context, builder = self.context, self.builder
        if isinstance(kind, types.BaseTuple):
            return context.make_tuple(builder, kind, [self.read(part) for part in kind])
        if isinstance(kind, types.Array):
            return self._array(kind)
        word = self._word()
        if isinstance(kind, types.Boolean):
            return builder.icmp_signed("!=", word, _WORD(0))
        if kind == types.float64:
            return builder.bitcast(word, ir.DoubleType())
        assert kind == types.int64
        return word

    def _word(self) -> Any:
        self.at += 1
        return self.builder.load(self.builder.gep(self.data, [_WORD(self.at - 1)]))

    def _array(self, kind: Any) -> Any:
        context, builder = self.context, self.builder
        element = context.get_data_type(kind.dtype)
        data = builder.inttoptr(self._word(), element.as_pointer())
        size = context.get_abi_sizeof(element)
        shape = [self._word() for _ in range(kind.ndim)]
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
