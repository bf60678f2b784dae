"""Finding the layers of a transformer, whatever its family calls them."""

from __future__ import annotations

from torch import nn

from treegym.errors import ConfigError

__all__ = ["blocks_of", "feed_forward_of"]

_FEED_FORWARD = ("mlp", "feed_forward", "ffn")


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Returns the stack of blocks: the longest list of modules of one class."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    stacks = [stack for stack in stacks if len({type(block) for block in stack}) == 1]
    if not stacks:
        raise ConfigError(f"{type(model).__name__} has no stack of equal blocks; this method needs a transformer")
    return max(stacks, key=lambda stack: (len(stack), sum(p.numel() for p in stack.parameters())))


def feed_forward_of(block: nn.Module) -> tuple[str, nn.Module]:
    """Returns the name and the module of a block's feed-forward part."""
    for name in _FEED_FORWARD:
        if hasattr(block, name):
            return name, getattr(block, name)
    raise ConfigError(f"{type(block).__name__} has none of {', '.join(_FEED_FORWARD)}; this method cannot find its MLP")
