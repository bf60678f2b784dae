r"""Next-token losses over a large vocabulary, without ever laying out a ``[tokens, vocabulary]`` table.

Log-probability, entropy and log-sum-exp of a state need its row of logits once, forward and backward. So states go
through the output embedding some rows at a time: each block of logits is reduced and forgotten, and computed again for
its gradient. With p the probabilities, z the logits, T = log sum e^z and M = sum p z (the entropy is T - M),

    dT/dz = p        dM/dz = p (1 + z - M)        d z_a/dz = [a]

A model may have several ends (see `treegym.models.tokens.ends`). They are folded into EOS: its logit is their
log-sum-exp E, the others have none; T stays what it is, and in M and dM every end's z is E. Tokens that are barred have
probability 0.

Letters: N states, D hidden size, V vocabulary, K tokens asked per state, n rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["Head", "Said", "draw", "likeliest", "read", "token_log_probs"]

BLOCK = 2**23  # logits of one block: 32 MB in float32
CUMULATED = 256  # columns that a draw sums up before it looks for one among them


class Head(NamedTuple):
    """What turns states into logits."""

    weight: torch.Tensor  # [V, D]
    bias: torch.Tensor | None = None  # [V]
    cap: float | None = None  # logits are cap * tanh(logits / cap)
    ends: torch.Tensor | None = None  # int64, several tokens that count as one end, EOS first; None: EOS is a token
    barred: torch.Tensor | None = None  # int64, tokens of probability 0


class Said(NamedTuple):
    """What was read of distributions."""

    picked: torch.Tensor  # [N, K] logits of the tokens asked for
    total: torch.Tensor  # [N] log of the sum over the vocabulary
    mean: torch.Tensor  # [N] expected logit; zeros if not asked for


def read(states: torch.Tensor, head: Head, tokens: torch.Tensor, *, mean: bool = False) -> Said:
    """Reads the distributions after states ``[N, D]``, with gradients by states, weight and bias.

    Args:
        states: last hidden states.
        head: what makes logits of them.
        tokens: ``[N, K]`` int64, whose logits are wanted.
        mean: whether the expected logit is wanted, which entropy needs.
    """
    return Said(*_Read.apply(states, head.weight, head.bias, tokens, head, mean))  # type: ignore[no-untyped-call]


def token_log_probs(
    states: torch.Tensor, head: Head, tokens: torch.Tensor, *, entropy: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns log-probabilities ``[N]`` of one token after each state, and entropies ``[N]`` (zeros if not wanted)."""
    said = read(states, head, tokens[:, None], mean=entropy)
    spread = said.total - said.mean if entropy else torch.zeros_like(said.total)
    return said.picked[:, 0] - said.total, spread


@torch.no_grad()
def draw(states: torch.Tensor, head: Head, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples a token after each state by inverting its distribution function at ``uniform [N] float64``.

    Returns tokens ``[N]``, EOS for every end, and their log-probabilities ``[N]``.
    """
    tokens, found = [], []
    for rows, z in _blocks(states, head):
        total = torch.logsumexp(z, 1)
        p = (z - total[:, None]).exp_()
        short = -p.shape[1] % CUMULATED
        parts = nn.functional.pad(p, (0, short)).view(len(p), -1, CUMULATED)
        heights = parts.sum(2, dtype=torch.float64).cumsum(1)  # [n, V / CUMULATED]
        target = uniform[rows] * heights[:, -1]
        part = (heights <= target[:, None]).sum(1).clamp(max=heights.shape[1] - 1)
        row = torch.arange(len(p), device=p.device)
        below = torch.where(part > 0, heights[row, part - 1], 0.0)
        inside = parts[row, part].double().cumsum(1) + below[:, None]
        chosen = part * CUMULATED + (inside <= target[:, None]).sum(1)
        # rounding may lead past the last token that can be at all: then it is the likeliest
        lost = (chosen >= p.shape[1]) | (p.gather(1, chosen.clamp(max=p.shape[1] - 1)[:, None])[:, 0] == 0)
        chosen = torch.where(lost, p.argmax(1), chosen)
        if head.ends is not None:
            chosen = torch.where(torch.isin(chosen, head.ends), head.ends[0], chosen)
        tokens.append(chosen)
        found.append(_picked(z, head, chosen[:, None])[:, 0] - total)
    return torch.cat(tokens), torch.cat(found)


@torch.no_grad()
def likeliest(states: torch.Tensor, head: Head) -> torch.Tensor:
    """Returns the likeliest token after each state ``[N]``, all ends together being EOS."""
    best = []
    for _, z in _blocks(states, head):
        if head.ends is not None:
            end = z[:, head.ends].logsumexp(1)
            z[:, head.ends] = -torch.inf
            z[:, head.ends[0]] = end
        best.append(z.argmax(1))
    return torch.cat(best)


def _blocks(states: torch.Tensor, head: Head) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yields the logits ``[n, V]``, at least float32, of some rows at a time; barred ones are -inf."""
    size = max(1, BLOCK // len(head.weight))
    for first in range(0, len(states), size):
        rows = slice(first, first + size)
        z = nn.functional.linear(states[rows].to(head.weight.dtype), head.weight, head.bias)
        z = z if z.dtype == torch.float64 else z.float()
        if head.cap:
            z = torch.tanh(z / head.cap) * head.cap
        if head.barred is not None:
            z.index_fill_(1, head.barred, -torch.inf)
        yield rows, z


def _picked(z: torch.Tensor, head: Head, tokens: torch.Tensor) -> torch.Tensor:
    """Returns the logits ``[n, K]`` of tokens, EOS meaning all ends."""
    found = z.gather(1, tokens)
    if head.ends is None:
        return found
    return torch.where(tokens == head.ends[0], z[:, head.ends].logsumexp(1, keepdim=True), found)


def _folded(z: torch.Tensor, head: Head) -> torch.Tensor:
    """Returns logits to average: every end's is that of all, those of barred tokens, which weigh nothing, are 0."""
    if head.ends is not None:
        z = z.index_copy(1, head.ends, z[:, head.ends].logsumexp(1, keepdim=True).expand(-1, len(head.ends)))
    return z if head.barred is None else z.index_fill(1, head.barred, 0.0)


class _Read(torch.autograd.Function):
    """`read` as one step of autograd. The head comes along for its settings; weight and bias are its own."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tokens: torch.Tensor,
        head: Head, mean: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        kind = torch.float64 if weight.dtype == torch.float64 else torch.float32
        picked = torch.empty(tokens.shape, dtype=kind, device=states.device)
        total, expected = torch.empty(len(states), dtype=kind, device=states.device), torch.zeros_like(picked[:, 0])
        for rows, z in _blocks(states, head):
            total[rows] = torch.logsumexp(z, 1)
            picked[rows] = _picked(z, head, tokens[rows])
            if mean:
                expected[rows] = ((z - total[rows, None]).exp_() * _folded(z, head)).sum(1)
        ctx.save_for_backward(states, tokens, total, expected)
        ctx.head, ctx.mean = head, mean
        ctx.set_materialize_grads(False)
        return picked, total, expected

    @staticmethod
    def backward(ctx: Any, *by: torch.Tensor | None) -> tuple[Any, ...]:
        states, tokens, total, expected = ctx.saved_tensors
        head: Head = ctx.head
        by_picked, by_total, by_mean = by
        by_states = torch.zeros_like(states) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(head.weight, dtype=total.dtype) if ctx.needs_input_grad[1] else None
        by_bias = torch.zeros_like(total[:1]).expand(len(head.weight)).clone() if ctx.needs_input_grad[2] else None
        for rows, z in _blocks(states, head):
            slopes = _slopes(z, head, tokens[rows], total[rows], expected[rows], *(
                None if one is None else one[rows] for one in (by_picked, by_total, by_mean)
            ))  # fmt: skip
            if by_bias is not None:
                by_bias += slopes.sum(0)
            slopes = slopes.to(head.weight.dtype)
            if by_states is not None:
                by_states[rows] = (slopes @ head.weight).to(by_states.dtype)
            if by_weight is not None:
                by_weight += slopes.t() @ states[rows].to(head.weight.dtype)
        if by_weight is not None:
            by_weight = by_weight.to(head.weight.dtype)
        if by_bias is not None:
            by_bias = by_bias.to(head.weight.dtype)
        return by_states, by_weight, by_bias, None, None, None


def _slopes(
    z: torch.Tensor, head: Head, tokens: torch.Tensor, total: torch.Tensor, expected: torch.Tensor,
    by_picked: torch.Tensor | None, by_total: torch.Tensor | None, by_mean: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Returns the gradient ``[n, V]`` by the logits as the output embedding gives them."""
    p = (z - total[:, None]).exp_()
    if by_mean is not None:
        factor = (_folded(z, head) + (1.0 - expected)[:, None]).mul_(by_mean[:, None])
        slopes = factor.add_(0.0 if by_total is None else by_total[:, None]).mul_(p)
    elif by_total is not None:
        slopes = p.mul_(by_total[:, None])
    else:
        slopes = p.zero_()
    if by_picked is not None:
        if head.ends is not None:
            at_end = tokens == head.ends[0]
            share = torch.softmax(z[:, head.ends], 1) * torch.where(at_end, by_picked, 0.0).sum(1, keepdim=True)
            slopes.index_add_(1, head.ends, share)
            by_picked = torch.where(at_end, 0.0, by_picked)
        slopes.scatter_add_(1, tokens, by_picked)
    if head.barred is not None:
        z = z.index_fill(1, head.barred, 0.0)
        slopes.index_fill_(1, head.barred, 0.0)
    return slopes if not head.cap else slopes.mul_(1.0 - (z / head.cap) ** 2)
