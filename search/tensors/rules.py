"""Selection rules over rows of tensors; formulas and papers as in `treegym.search.kernels.rules`.

Sums and products are rounded as the kernels round them, so that equal scores are equal in both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from treegym.search.kernels.codes import FIRST_FIXED, FIRST_PARENT, RULE_GUMBEL, RULE_PUCT
from treegym.search.kernels.numeric import EPSILON, FAR, LEAST
from treegym.search.kernels.walk import Settings

__all__ = ["Rows", "Rule", "fused", "priors"]

_LEAST_EXPONENT = -87.0  # as `exp32` has it
_SURE = -1e9  # the least score of a child that halving considers


class Rows(NamedTuple):
    """What a rule reads of nodes, in any number of leading dimensions."""

    prior: torch.Tensor  # [.., A] float32, 0 where the action is illegal
    visits: torch.Tensor  # [.., A] int32
    q: torch.Tensor  # [.., A] float32
    seen: torch.Tensor  # [..] int32
    value: torch.Tensor  # [..] float32
    raw: torch.Tensor  # [..] float32


def fused(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Returns a b + c of float32 numbers, rounded once: a processor's fused operation, on any device."""
    return torch.addcmul(c.double(), a.double(), b.double()).float()


def exponential(x: torch.Tensor) -> torch.Tensor:
    """Returns e**x for x <= 0, raised to what float32 can hold; above 0 there are only illegal actions."""
    return torch.exp(x.clamp(_LEAST_EXPONENT, 0.0))


def _inverse(weight: torch.Tensor) -> torch.Tensor:
    """Returns 1 / sum of weights [.., A] as [.., 1]; in float64, so that the order of adding up does not matter."""
    return (1.0 / weight.sum(-1, keepdim=True, dtype=torch.float64)).float()


def priors(logits: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    """Returns the probabilities of logits [.., A] among legal actions, 0 for the others."""
    masked = torch.where(legal, logits, -torch.inf)
    weight = torch.where(legal, exponential(masked - masked.amax(-1, keepdim=True)), 0.0)
    return torch.where(legal, (weight * _inverse(weight)).clamp(min=float(LEAST)), 0.0)


class Rule:
    """A selection rule with its settings."""

    def __init__(self, settings: Settings, noisy: torch.Tensor, width: torch.Tensor) -> None:
        """Takes the roots' Gumbel noise + log prior [B, A] and their number of legal actions [B]."""
        self.settings, device = settings, noisy.device
        self._noisy = noisy
        self._explore = torch.from_numpy(settings.explore).to(device)
        self._shrink = torch.from_numpy(settings.shrink).to(device)
        table = torch.from_numpy(settings.halving).to(device)
        self._phases = table[width.clamp(max=len(table) - 1)].long()  # [B, P, 3]

    def choose(self, rows: Rows) -> torch.Tensor:
        """Returns the action to take from each node, int64 [..]; at a root, `choose_at_root` decides for Gumbel."""
        score = {RULE_GUMBEL: self._gumbel, RULE_PUCT: self._puct}.get(self.settings.rule, self._uct)(rows)
        return torch.where(rows.prior > 0, score, -torch.inf).argmax(-1)

    @property
    def halves(self) -> bool:
        """Whether the root has a rule of its own."""
        return self.settings.rule == RULE_GUMBEL

    def choose_at_root(self, rows: Rows, done: int) -> torch.Tensor:
        """Returns argmax g + logit + sigma(Q) among the children that halving considers after `done` simulations."""
        phase = (self._phases[:, :, 0] <= done).sum(1, keepdim=True).clamp(min=1) - 1
        first, visits, alive = self._phases.gather(1, phase[:, :, None].expand(-1, 1, 3))[:, 0].unbind(1)
        considered = visits + (done - first) // alive
        gain, _ = self._completed(rows)
        score = (self._noisy + gain).clamp(min=_SURE)
        score = torch.where(rows.visits == considered[:, None], score, -float(FAR))
        return torch.where(rows.prior > 0, score, -torch.inf).argmax(-1)

    def _scale(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the least Q of the visited children and the node, [.., 1], and what brings the span to 1."""
        value, seen = rows.value[..., None], rows.visits > 0
        if not self.settings.normalise:
            return torch.zeros_like(value), torch.ones_like(value)
        low = torch.minimum(torch.where(seen, rows.q, torch.inf).amin(-1, keepdim=True), value)
        high = torch.maximum(torch.where(seen, rows.q, -torch.inf).amax(-1, keepdim=True), value)
        return low, 1.0 / (high - low).clamp(min=float(EPSILON))

    def _puct(self, rows: Rows) -> torch.Tensor:
        low, scale = self._scale(rows)
        weight = self._explore[rows.seen.clamp(max=len(self._explore) - 1)][..., None] * rows.prior
        first = torch.zeros_like(scale)
        if self.settings.first_play == FIRST_PARENT:
            first = (rows.value[..., None] - low) * scale
        elif self.settings.first_play == FIRST_FIXED:
            first = (self.settings.first_value - low) * scale
        return torch.where(rows.visits > 0, fused(rows.q - low, scale, weight / (rows.visits + 1)), weight + first)

    def _uct(self, rows: Rows) -> torch.Tensor:
        low, scale = self._scale(rows)
        spread = self.settings.c_explore * torch.log(rows.seen.float()).sqrt()[..., None]
        score = (rows.q - low) * scale + spread * self._shrink[rows.visits.clamp(max=len(self._shrink) - 1)]
        return torch.where(rows.visits > 0, score, 1e6 + rows.prior)

    def _completed(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns sigma(Q) - max sigma(Q) [.., A], Q completed by the mixed value, and all visits [.., 1]."""
        seen, settings = rows.visits > 0, self.settings
        total = rows.visits.sum(-1, keepdim=True, dtype=torch.int32)
        most = rows.visits.amax(-1, keepdim=True)
        share = torch.where(seen, rows.prior, 0.0).double()
        mean = (share * rows.q).sum(-1, keepdim=True) / share.sum(-1, keepdim=True)
        raw = rows.raw[..., None]
        mixed = torch.where(total > 0, ((raw + total * mean) / (total + 1)).float(), raw)
        known = torch.where(seen, rows.q, mixed)
        legal = rows.prior > 0
        low = torch.where(legal, known, torch.inf).amin(-1, keepdim=True)
        high = torch.where(legal, known, -torch.inf).amax(-1, keepdim=True)
        scale = (settings.c_visit + most.double()).float() * settings.c_scale
        if settings.normalise:
            scale = scale / (high - low).clamp(min=float(EPSILON))
        return (known - high) * scale, total

    def _gumbel(self, rows: Rows) -> torch.Tensor:
        gain, total = self._completed(rows)
        weight = rows.prior * exponential(gain)
        return weight * _inverse(weight) - rows.visits * (1.0 / (total + 1))
