r"""The layers of a Llama, forward and backward, on packed tokens: no padding, and shared beginnings are read once.

`transformers` runs any model; for small Llamas on a CPU most of its time is bookkeeping and padding. `Llama` does the
same arithmetic on the same weights, with matrix products by torch and the rest by `lm_kernels.py`. It is used where
`fits` says so and a comparison with the model's own layers agrees; everything else goes through the model itself.

Letters: M tokens, S segments, D hidden size, H heads, G key/value heads, d head size, F inner size, P places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from treegym.agents.fast.llama_kernels import (
    attend_backward,
    attend_forward,
    rms_backward,
    rms_forward,
    rotate,
    swiglu_backward,
    swiglu_forward,
)
from treegym.agents.fast.packing import Packed

__all__ = ["Layer", "Llama", "Shape", "fits", "layers_of", "norm"]

PER_LAYER = 9  # weights of a layer, in the order of `_weights_of`
PLAIN = (nn.Linear, nn.Embedding, nn.ModuleList)
LONGEST = 512  # places; the attention here is written for short texts


class Shape(NamedTuple):
    """What of a configuration the arithmetic needs."""

    heads: int
    groups: int
    size: int  # of a head
    eps: float
    scaling: float
    cos: np.ndarray  # [P, d / 2] float32
    sin: np.ndarray


class Layer(NamedTuple):
    """A layer's weights, those that read the same input as one matrix."""

    before: torch.Tensor  # [D] norm before attention
    qkv: torch.Tensor  # [(H + 2G) d, D]
    out: torch.Tensor  # [D, H d]
    after: torch.Tensor  # [D] norm after attention
    gate_up: torch.Tensor  # [2F, D]
    down: torch.Tensor  # [D, F]


@dataclass
class _Kept:
    """What the backward pass of a layer needs; the rest, the larger part, is computed again from it."""

    x: torch.Tensor  # [M, D] before the layer
    qkv: torch.Tensor  # [M, (H + 2G) d], rotated
    mixed: torch.Tensor  # [M, H d]
    logs: np.ndarray  # [M, H]
    middle: torch.Tensor  # [M, D] after attention


def fits(trunk: Any) -> bool:
    """Whether a trunk is a plain float32 Llama on a CPU that nothing hooks into or has changed (as adapters do)."""
    if type(trunk).__name__ != "LlamaModel" or getattr(trunk, "gradient_checkpointing", False):
        return False
    config = trunk.config
    rope = getattr(config, "rope_parameters", None) or {}
    if config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        return False
    if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        return False
    for module in trunk.modules():
        kind = type(module)
        if kind not in PLAIN and not kind.__module__.startswith(("transformers.models.llama.", "transformers.activ")):
            return False
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module):
            return False
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in trunk.parameters())


class Llama:
    """The layers of a Llama, on its own weights.

    Args:
        trunk: the layers below the output embeddings; they `fits`.
    """

    def __init__(self, trunk: Any) -> None:
        self.trunk = trunk
        config = trunk.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.places = min(int(config.max_position_embeddings), LONGEST)
        angles = torch.outer(torch.arange(self.places).float(), trunk.rotary_emb.inv_freq.float())  # [P, d / 2]
        self.shape = Shape(
            config.num_attention_heads, config.num_key_value_heads, size, float(config.rms_norm_eps), size**-0.5,
            angles.cos().numpy(), angles.sin().numpy(),
        )  # fmt: skip

    @classmethod
    def of(cls, trunk: Any) -> Llama | None:
        """Returns a trunk's layers if they fit and what they compute agrees with the trunk itself, else None."""
        if not fits(trunk):
            return None
        found = cls(trunk)
        return found if found.agrees() else None

    def weights(self) -> list[torch.Tensor]:
        """Returns the weights as they are now: the embedding, `PER_LAYER` for each layer, the last norm."""
        layers = [weight for layer in self.trunk.layers for weight in _weights_of(layer)]
        return [self.trunk.embed_tokens.weight, *layers, self.trunk.norm.weight]

    def states(self, packed: Packed) -> torch.Tensor:
        """Returns the last hidden states ``[M, D]``, with gradients where they are wanted."""
        weights = self.weights()
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return _Trunk.apply(self.shape, packed, *weights)  # type: ignore[no-untyped-call]
        return forward(self.shape, packed, weights, None)

    def agrees(self) -> bool:
        """Whether it computes what the model's own layers compute, on a few tokens."""
        ids = torch.arange(8, dtype=torch.long)[None] % self.trunk.embed_tokens.weight.shape[0]
        with torch.no_grad():
            theirs = self.trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
            ours = self.states(Packed.of([ids[0].numpy()]))
        return bool(torch.allclose(theirs, ours, rtol=1e-3, atol=1e-4))


def _weights_of(layer: nn.Module) -> Iterator[torch.Tensor]:
    attention: Any = layer.self_attn
    mlp: Any = layer.mlp
    before: Any = layer.input_layernorm
    after: Any = layer.post_attention_layernorm
    yield before.weight
    for module in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        yield module.weight
    yield after.weight
    for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        yield module.weight


def layers_of(weights: list[torch.Tensor]) -> list[Layer]:
    """Returns the layers of `Llama.weights`, joined to matrices."""
    found = []
    for first in range(1, len(weights) - 1, PER_LAYER):
        before, q, k, v, out, after, gate, up, down = (weight.detach() for weight in weights[first : first + PER_LAYER])
        found.append(Layer(before, torch.cat([q, k, v]), out, after, torch.cat([gate, up]), down))
    return found


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, np.ndarray]:
    """Returns the normed rows ``[M, D]`` and what each was multiplied with ``[M]``."""
    out, scale = torch.empty_like(x), np.empty(len(x), np.float32)
    rms_forward(x.numpy(), weight.numpy(), eps, out.numpy(), scale)
    return out, scale


def forward(shape: Shape, packed: Packed, weights: list[torch.Tensor], keep: list[_Kept] | None) -> torch.Tensor:
    """Returns the last hidden states ``[M, D]``; appends to `keep` what each layer's backward pass needs."""
    x = weights[0].detach()[torch.from_numpy(packed.ids)]
    for layer in layers_of(weights):
        x = _layer_forward(shape, packed, layer, x, keep)
    return norm(x, weights[-1].detach(), shape.eps)[0] if keep is None else x


def _layer_forward(
    shape: Shape, packed: Packed, layer: Layer, x: torch.Tensor, keep: list[_Kept] | None
) -> torch.Tensor:
    qkv = norm(x, layer.before, shape.eps)[0] @ layer.qkv.t()
    rotate(qkv.numpy(), packed.place, shape.cos, shape.sin, shape.heads + shape.groups, 1.0)
    mixed, logs = torch.empty(len(x), shape.heads * shape.size), np.empty((len(x), shape.heads), np.float32)
    attend_forward(
        qkv.numpy(), packed.start, packed.length, packed.before, shape.heads, shape.groups, shape.scaling,
        mixed.numpy(), logs,
    )  # fmt: skip
    if packed.store is not None:
        packed.store(qkv)
    middle = torch.addmm(x, mixed, layer.out.t())
    if keep is not None:
        keep.append(_Kept(x, qkv, mixed, logs, middle))
    del qkv, mixed
    gate_up = norm(middle, layer.after, shape.eps)[0] @ layer.gate_up.t()
    return torch.addmm(middle, _activated(gate_up), layer.down.t())


def _activated(gate_up: torch.Tensor) -> torch.Tensor:
    """Returns ``silu(gate) * up [M, F]`` of ``[M, 2F]``."""
    active = torch.empty(len(gate_up), gate_up.shape[1] // 2)
    swiglu_forward(gate_up.numpy(), active.numpy())
    return active


def _layer_backward(
    shape: Shape, packed: Packed, layer: Layer, kept: _Kept, by_x: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns the gradients by the layer's input and by its weights, in the order of `_weights_of`."""
    normed, scale = norm(kept.middle, layer.after, shape.eps)
    gate_up = normed @ layer.gate_up.t()
    by_down = by_x.t() @ _activated(gate_up)
    by_gate_up = torch.empty_like(gate_up)
    swiglu_backward(gate_up.numpy(), (by_x @ layer.down).numpy(), by_gate_up.numpy())
    del gate_up
    gradient_gate_up = by_gate_up.t() @ normed
    by_after = torch.zeros_like(layer.after)
    by_middle = by_x  # overwritten from here on: it is not read again
    rms_backward(
        (by_gate_up @ layer.gate_up).numpy(), kept.middle.numpy(), layer.after.numpy(), scale,
        by_middle.numpy(), by_after.numpy(),
    )  # fmt: skip
    del by_gate_up
    by_out = by_middle.t() @ kept.mixed
    by_qkv = torch.zeros_like(kept.qkv)
    attend_backward(
        kept.qkv.numpy(), packed.start, packed.length, packed.before, shape.heads, shape.groups, shape.scaling,
        kept.mixed.numpy(), kept.logs, (by_middle @ layer.out).numpy(), by_qkv.numpy(),
    )  # fmt: skip
    rotate(by_qkv.numpy(), packed.place, shape.cos, shape.sin, shape.heads + shape.groups, -1.0)
    normed, scale = norm(kept.x, layer.before, shape.eps)
    gradient_qkv = by_qkv.t() @ normed
    by_before = torch.zeros_like(layer.before)
    rms_backward(
        (by_qkv @ layer.qkv).numpy(), kept.x.numpy(), layer.before.numpy(), scale, by_middle.numpy(),
        by_before.numpy(),
    )  # fmt: skip
    wide, narrow = shape.heads * shape.size, shape.groups * shape.size
    q, k, v = gradient_qkv.split([wide, narrow, narrow])
    gate, up = gradient_gate_up.chunk(2)
    return by_middle, [by_before, q, k, v, by_out, by_after, gate, up, by_down]


class _Trunk(torch.autograd.Function):
    """All layers as one step of autograd."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, packed: Packed, *weights: torch.Tensor) -> torch.Tensor:
        keep: list[_Kept] = []
        last = forward(shape, packed, list(weights), keep)
        out, ctx.scale = norm(last, weights[-1].detach(), shape.eps)
        ctx.shape, ctx.packed, ctx.keep, ctx.last = shape, packed, keep, last
        ctx.save_for_backward(*weights)  # says so if a weight is changed in between
        return out

    @staticmethod
    def backward(ctx: Any, *by_states: torch.Tensor) -> tuple[Any, ...]:
        weights = list(ctx.saved_tensors)
        if not ctx.keep:
            raise RuntimeError("the packed layers keep what a backward pass needs for one pass; read the tokens again")
        shape, packed = ctx.shape, ctx.packed
        by_norm = torch.zeros_like(weights[-1])
        by_x = torch.zeros_like(ctx.last)
        rms_backward(
            by_states[0].contiguous().numpy(), ctx.last.numpy(), weights[-1].detach().numpy(), ctx.scale,
            by_x.numpy(), by_norm.numpy(),
        )  # fmt: skip
        gradients: list[torch.Tensor] = []
        for layer in reversed(layers_of(weights)):
            by_x, by_layer = _layer_backward(shape, packed, layer, ctx.keep.pop(), by_x)
            gradients = by_layer + gradients
        by_embedding = torch.zeros_like(weights[0]).index_add_(0, torch.from_numpy(packed.ids), by_x)
        every = [by_embedding, *gradients, by_norm]
        return (None, None, *(g if needed else None for g, needed in zip(every, ctx.needs_input_grad[2:], strict=True)))
