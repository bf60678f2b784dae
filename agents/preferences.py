r"""Losses on preferred answers, as pure functions of log-probabilities: DPO, IPO and SimPO.

An answer may be a whole text, whose log-probability is the sum over its tokens, or one token among the siblings of a
tree. With :math:`\Delta = \log \pi(w|x)/\pi_{ref}(w|x) - \log \pi(l|x)/\pi_{ref}(l|x)` for a preferred answer w and
another l, each loss pushes :math:`\Delta` up to where its own idea of the optimum is. Letters: P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn.functional import logsigmoid

__all__ = ["LOSSES", "Compared", "dpo", "ipo", "preference_loss", "simpo"]


class Compared(NamedTuple):
    """What a model and its reference say of pairs of answers. All are ``[P]``."""

    chosen: torch.Tensor  # log-probability of the preferred answer, summed over its tokens
    rejected: torch.Tensor
    reference_chosen: torch.Tensor  # the same by the model that learning began from; without gradients
    reference_rejected: torch.Tensor
    chosen_length: torch.Tensor  # tokens
    rejected_length: torch.Tensor
    weight: torch.Tensor  # how much the pair counts: 1, or the gap in value between two siblings


def dpo(pairs: Compared, *, beta: float, margin: float = 0.0) -> torch.Tensor:
    r"""Returns :math:`-\log \sigma(\beta \Delta)` of each pair ``[P]``.

    Rafailov et al. 2023 (https://arxiv.org/abs/2305.18290), equation 7. `margin` is taken off within the sigmoid, as
    in Amini et al. 2024 (https://arxiv.org/abs/2402.10571); 0 is plain DPO.
    """
    delta = (pairs.chosen - pairs.reference_chosen) - (pairs.rejected - pairs.reference_rejected)
    return -logsigmoid(beta * delta - margin)


def ipo(pairs: Compared, *, beta: float, margin: float = 0.0) -> torch.Tensor:
    r"""Returns :math:`(\bar\Delta - 1 / 2\beta)^2` of each pair ``[P]``; there is no margin but that one.

    Azar et al. 2023 (https://arxiv.org/abs/2310.12036), equation 17, whose tau is `beta` here. Deviation: each ratio
    is averaged over its answer's tokens (:math:`\bar\Delta`), since a sum would make the target depend on length.
    """
    better = (pairs.chosen - pairs.reference_chosen) / pairs.chosen_length
    worse = (pairs.rejected - pairs.reference_rejected) / pairs.rejected_length
    return (better - worse - 1.0 / (2.0 * beta)) ** 2


def simpo(pairs: Compared, *, beta: float, margin: float = 0.0) -> torch.Tensor:
    r"""Returns :math:`-\log \sigma(\beta (\log\pi(w)/|w| - \log\pi(l)/|l|) - \gamma)` of each pair ``[P]``.

    Meng et al. 2024 (https://arxiv.org/abs/2405.14734), equation 6, whose gamma is `margin` here. No reference is read.
    """
    difference = pairs.chosen / pairs.chosen_length - pairs.rejected / pairs.rejected_length
    return -logsigmoid(beta * difference - margin)


LOSSES: Mapping[str, Callable[..., torch.Tensor]] = {"dpo": dpo, "ipo": ipo, "simpo": simpo}


def preference_loss(
    pairs: Compared, name: str, *, beta: float, margin: float = 0.0, nll_coef: float = 0.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Returns a batch's loss, the weighted mean over its pairs, and figures to log.

    .. math:: L = \frac{\sum_i w_i\, \ell_i}{\sum_i w_i} + c\, \frac{-\sum_i w_i \log\pi(w_i)}{\sum_i w_i |w_i|}

    The second term keeps the preferred answers likely, which the difference alone does not: it may grow while both
    fall (Pang et al. 2024, https://arxiv.org/abs/2404.19733).

    Args:
        pairs: the batch.
        name: a key of `LOSSES`.
        beta: how much a difference counts; of DPO and IPO, larger keeps closer to the reference.
        margin: what the difference has to reach.
        nll_coef: c, the weight of the likelihood of preferred answers.
    """
    each = LOSSES[name](pairs, beta=beta, margin=margin)
    total = (pairs.weight * each).sum() / pairs.weight.sum()
    if nll_coef:
        tokens = (pairs.weight * pairs.chosen_length).sum()
        total = total - nll_coef * (pairs.weight * pairs.chosen).sum() / tokens
    with torch.no_grad():
        gained = pairs.chosen - pairs.reference_chosen
        lost = pairs.rejected - pairs.reference_rejected
        figures: dict[str, Any] = {"loss": total.detach(), "chosen": gained.mean(), "rejected": lost.mean(),
                                   "ahead": (gained > lost).float().mean()}  # fmt: skip
    return total, {key: float(value) for key, value in figures.items()}
