"""What a module is: numbers a policy can read, and the kind of module its strategy history is kept under."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from treegym.optimize.memory import footprint
from treegym.optimize.strategies.base import Arguments, call, map_tensors, tensors_of

__all__ = ["describe", "kind_of"]

_COUNTED: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "convolution": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "batch_norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "layer_norm": (nn.LayerNorm, nn.GroupNorm),
    "recurrent": (nn.LSTM, nn.GRU, nn.RNN),
    "embedding": (nn.Embedding,),
    "activation": (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid),
}


def describe(module: nn.Module, sample: Arguments) -> dict[str, float]:
    """Returns the layer kinds, sizes, shapes and arithmetic intensity of a module."""
    from torch.utils.flop_counter import FlopCounterMode

    layers = list(module.modules())
    found = {
        f"log_{kind}": math.log1p(sum(isinstance(layer, types) for layer in layers)) for kind, types in _COUNTED.items()
    }
    dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
    size = footprint(module)
    rows = [tensor.numel() // max(1, tensor.shape[-1]) if tensor.dim() else 1 for tensor in tensors_of(sample)]
    counter, spotter = FlopCounterMode(display=False), _AttentionSpotter()
    with torch.no_grad(), counter, spotter:
        call(module, map_tensors(sample, torch.clone))
    flops = counter.get_total_flops()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return found | {
        "log_parameters": math.log10(1 + parameters),
        "log_flops": math.log10(1 + flops),
        "log_intensity": math.log10(1 + flops / max(1, size)),
        "widest_linear": math.log2(1 + max((max(layer.weight.shape) for layer in dense), default=0)),
        "median_linear": math.log2(
            1 + sorted(min(layer.weight.shape) for layer in dense)[len(dense) // 2] if dense else 1
        ),
        "log_rows": math.log2(1 + max(rows, default=0)),
        "linear_share": sum(layer.weight.numel() for layer in dense) / max(1, parameters),
        "attention": float(spotter.found or _named_attention(module)),
    }


def kind_of(module: nn.Module, sample: Arguments | None = None) -> str:
    """Returns the kind of a module: from its layers, the names of its classes and, with a sample, what it computes."""
    layers = list(module.modules())
    names = " ".join(dict.fromkeys(type(layer).__name__.lower() for layer in layers))
    attributes = " ".join(dict(module.named_modules())).lower()
    has = {kind: any(isinstance(layer, types) for layer in layers) for kind, types in _COUNTED.items()}
    if "expert" in names or "moe" in names or "expert" in attributes:
        return "moe"
    if "latent" in names and "attention" in names:
        return "latent_attention"
    if type(module).__name__.endswith(("ForCausalLM", "LMHeadModel")):  # as Hugging Face names them
        return "language_model"
    if "qwen" in names:
        return "qwen"
    if "video" in names or "tower" in names or ("vision" in attributes and "text" in attributes):
        return "multimodal"
    if "llama" in names or "rmsnorm" in names:
        return "llama"
    if has["recurrent"]:
        return "recurrent"
    if _named_attention(module) or (sample is not None and _attends(module, sample)):
        return "conv_transformer" if has["convolution"] and has["batch_norm"] else "transformer"
    if has["convolution"]:
        return "generator" if any(word in names for word in ("generator", "upsampl", "decoder")) else "convolution"
    return "generator" if "autoencoder" in names else "dense"


class _AttentionSpotter(TorchDispatchMode):
    """Sees attention by what is computed, whatever classes are called: a product with the result of a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False
        self._weights: dict[int, Tensor] = {}  # by address; kept, so that no address is used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if "scaled_dot_product" in name or "multi_head_attention" in name or "transformer_encoder_layer" in name:
            self.found = True
        known = any(isinstance(x, Tensor) and x.data_ptr() in self._weights for x in args)
        if name in ("_softmax", "_safe_softmax") or (known and name in ("_to_copy", "clone", "dropout")):
            self._weights[out.data_ptr()] = out
        elif known and name == "bmm":
            self.found = True
        return out


def _attends(module: nn.Module, sample: Arguments) -> bool:
    spotter = _AttentionSpotter()
    with torch.no_grad(), spotter:
        call(module, map_tensors(sample, torch.clone))
    return spotter.found


def _named_attention(module: nn.Module) -> bool:
    return any(
        isinstance(layer, nn.MultiheadAttention) or "attention" in type(layer).__name__.lower()
        for layer in module.modules()
    )
