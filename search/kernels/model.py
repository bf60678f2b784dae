"""The models of compiled simulators: their signature, and how a kernel calls one.

A kernel is compiled once for all models, so it knows a model by its address. It calls the function itself and not a
wrapper for C: such a wrapper copies thirty numbers, and a copy in wide pieces of what was just written in narrow ones
makes the processor wait; that was a twelfth of a search.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, typeof_impl

from treegym.search.kernels.numeric import kernel

__all__ = ["MODEL", "CompiledModel", "ModelDesk", "ModelStarts", "ModelWorld", "call_model", "compiled_model"]

_F32 = types.float32
MODEL = types.void(
    _F32[::1],  # params [P]
    _F32[:, ::1],  # states [N, D]: read row `parent`, write row `new`
    types.int64,  # parent
    types.int64,  # action
    types.int64,  # new
    _F32[::1],  # logits [A], to be written
    types.boolean[::1],  # legal [A], all True: set to False what is not
    _F32[::1],  # told [3], to be written: reward, value, terminated (above 0; 0 unless written)
)


class ModelWorld(NamedTuple):
    """A compiled model and its parameters."""

    entry: int  # where the model's code stands
    params: np.ndarray  # [P] float32


class ModelStarts(NamedTuple):
    """The roots and their judgement."""

    states: np.ndarray  # [B, D] float32
    logits: np.ndarray  # [B, A] float32
    value: np.ndarray  # [B] float32
    legal: np.ndarray  # [B, A] bool


class ModelDesk(NamedTuple):
    """What a model writes its judgement into."""

    logits: np.ndarray  # [A] float32
    legal: np.ndarray  # [A] bool
    told: np.ndarray  # [3] float32


# One type for all compiled models, whether or not their arrays are locked against writing.
_WORLD = types.NamedTuple([types.int64, types.Array(_F32, 1, "C")], ModelWorld)
_STARTS = types.NamedTuple(
    [types.Array(kind, dims, "C") for kind, dims in ((_F32, 2), (_F32, 2), (_F32, 1), (types.boolean, 2))], ModelStarts
)


@typeof_impl.register(ModelWorld)
def _type_of_model_world(world: ModelWorld, context: Any) -> Any:
    return _WORLD


@typeof_impl.register(ModelStarts)
def _type_of_model_starts(starts: ModelStarts, context: Any) -> Any:
    return _STARTS


class CompiledModel:
    """A model that kernels can call; made by `compiled_model`."""

    def __init__(self, function: Any) -> None:
        """Compiles the function."""
        self.function = kernel(function)
        self.function.compile(MODEL)
        compiled = self.function.overloads[MODEL.args]
        self.entry = int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def compiled_model(function: Any) -> CompiledModel:
    """Compiles ``function(params, states, parent, action, new, logits, legal, told)``; arguments as in `MODEL`."""
    return CompiledModel(function)


@intrinsic
def call_model(typing_context, entry, params, states, parent, action, new, logits, legal, told):
    """Calls the model at an address; returns 0, or something else if it raised an exception."""
    signature = types.int32(types.int64, *MODEL.args)

    def generate(context, builder, signature, arguments):
        convention = context.call_conv
        kind = convention.get_function_type(types.void, MODEL.args)
        result, problem = (cgutils.alloca_once(builder, part.pointee) for part in kind.args[:2])
        packer = context.get_arg_packer(MODEL.args)
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        status = builder.call(function, [result, problem, *packer.as_arguments(builder, arguments[1:])])
        none = builder.icmp_signed("==", status, ir.Constant(status.type, -2))  # "None was returned"
        return builder.select(none, ir.Constant(status.type, 0), status)

    return signature, generate
