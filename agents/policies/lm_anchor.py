r"""The anchor: a loss that keeps the probability of the whole vocabulary on the children of the tree.

    L_anchor = -log sum over children k of p(token_k)  =  log sum over V of e^logit  -  log sum over children of e^logit

A loss over renormalised children is blind to all other tokens: their logits may drift above the children's, and the
model, which chooses among children as it should, writes nonsense when it answers alone. The anchor is 0 exactly when
no probability is left outside the children. Its gradient joins the algorithm's own on the way back, so no algorithm
needs to know of it.

Letters: N steps, K children.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["anchored", "off_tree_loss"]


def off_tree_loss(children: torch.Tensor, total: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns the anchor's loss ``[N]`` from logits of children ``[N, K]``, that of all ``[N]`` and the mask."""
    legal = children.masked_fill(~mask.bool(), float("-inf"))
    return total - torch.logsumexp(legal, 1)


def anchored(children: torch.Tensor, total: torch.Tensor, mask: torch.Tensor, weight: float) -> torch.Tensor:
    """Returns the children's logits as they came; what flows back through them carries the anchor's gradient along.

    The anchor is a mean over the steps at hand, so with `micro_batch` every part of a batch pulls with the full weight.
    """
    loss = weight * off_tree_loss(children, total, mask).mean()
    joined: torch.Tensor = _Join.apply(children, loss)  # type: ignore[no-untyped-call]
    return joined


class _Join(torch.autograd.Function):
    """Passes a tensor through; on the way back, gives a second loss the gradient 1."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradient, torch.ones((), dtype=gradient.dtype, device=gradient.device)
