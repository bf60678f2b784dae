r"""Policy-gradient losses as pure functions of tensors. Letters: N tokens (steps), E episodes.

`loss` is what PPO, DAPO, VAPO and their relatives minimise; whatever computes its gradient otherwise is held to it:

    loss = sum over tokens [ -min(r A, clip(r) A) + beta KL - c_e entropy ] / normaliser + c_v mean (V - target)^2
           + c_nll * mean over tokens of correct episodes of -log pi

Its parts come per token; `aggregate` turns tokens into one number, so the choice of normaliser is visible and the
same for all: by default the token sum over the number of tokens in the *whole* update batch, which makes gradients
independent of how the batch is cut into micro-batches.
"""

from __future__ import annotations

from typing import Any

import torch

from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import FIGURES, Whole

__all__ = ["aggregate", "clipped_surrogate", "correct_nll", "kl_estimate", "loss", "value_loss"]


def loss(
    log_prob: torch.Tensor,
    entropy: torch.Tensor,
    value: torch.Tensor | None,
    lesson: Any,
    whole: Whole,
    settings: GradientSettings,
    kl_beta: float,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Returns the loss of a (micro-)batch, normalised over the `whole` update batch, and `FIGURES` to log.

    Args:
        log_prob: ``[N]``, of the actions taken.
        entropy: ``[N]``.
        value: ``[N]``, the critic's; None where there is none.
        lesson: the (micro-)batch, a `Lesson` of tensors.
        whole: what normalises, and the schedules' values.
        settings: the learner's switches.
        kl_beta: the weight of the KL to the reference policy.
    """
    clipped = clipped_surrogate(
        log_prob,
        lesson.old_log_probs,
        lesson.advantages,
        clip_low=whole.clip_low,
        clip_high=whole.clip_high,
        dual_clip=settings.dual_clip,
    )
    token = clipped
    if kl_beta and settings.kl_in == "loss":
        token = token + kl_beta * kl_estimate(log_prob, lesson.reference, kind=settings.kl_estimator)
    if whole.ent_coef:
        token = token - whole.ent_coef * entropy
    total = aggregate(
        token,
        mode=settings.aggregation,
        lengths=lesson.length,
        tokens=whole.tokens,
        episodes=whole.episodes,
        horizon=settings.horizon,
    )
    squared = torch.zeros(())
    if value is not None:
        squared = value_loss(value, lesson.targets, old_values=lesson.old_values, clip=settings.clip_range_vf)
        total = total + settings.vf_coef * squared.sum() / whole.tokens
    if whole.nll_coef and whole.correct_tokens:
        share = float(lesson.correct.sum()) / whole.correct_tokens  # so that micro-batches add up
        total = total + whole.nll_coef * share * correct_nll(log_prob, lesson.correct)
    with torch.no_grad():
        log_ratio = log_prob - lesson.old_log_probs
        ratio = log_ratio.exp()
        outside = (ratio < 1 - whole.clip_low) | (ratio > 1 + whole.clip_high)
        sums = (clipped, squared, entropy, ratio - 1 - log_ratio, outside)
        figures = {name: float(part.sum()) / whole.tokens for name, part in zip(FIGURES, sums, strict=True)}
    return total, figures


def clipped_surrogate(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantage: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> torch.Tensor:
    r"""Returns PPO's loss of each token, :math:`-\min(r A, clip(r, 1 - c_{low}, 1 + c_{high}) A)`: ``[N]``.

    ``clip_high > clip_low`` is DAPO's "clip-higher" (https://arxiv.org/abs/2503.14476, equation 10). `dual_clip` c > 1
    bounds the loss at -c A where A < 0 (https://arxiv.org/abs/1912.09729), so that one unlikely token cannot dominate.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    if dual_clip is not None:
        objective = torch.where(advantage < 0, torch.maximum(objective, dual_clip * advantage), objective)
    return -objective


def aggregate(
    per_token: torch.Tensor,
    *,
    mode: str = "token",
    lengths: torch.Tensor | None = None,
    tokens: int | None = None,
    episodes: float | None = None,
    horizon: int | None = None,
) -> torch.Tensor:
    """Returns one loss from the tokens of one (micro-)batch.

    Args:
        per_token: ``[N]``.
        mode: ``"token"``: sum / tokens (DAPO); ``"sample"``: mean over episodes of each one's mean (GRPO);
            ``"constant"``: sum / (episodes * horizon) (Dr. GRPO), which has no length bias.
        lengths: ``[N]`` length of the episode each token belongs to; needed for "sample".
        tokens: tokens in the whole update batch; None means these are all of it.
        episodes: episodes in the whole update batch; needed for "sample" and "constant".
        horizon: the constant that Dr. GRPO divides by, the longest possible episode.
    """
    if mode == "token":
        return per_token.sum() / (tokens or max(per_token.numel(), 1))
    if mode == "sample" and lengths is not None and episodes:
        return (per_token / lengths).sum() / episodes
    if mode == "constant" and horizon and episodes:
        return per_token.sum() / (episodes * horizon)
    raise ValueError(f"aggregate: mode {mode!r} is unknown or lacks lengths, episodes or horizon")


def value_loss(
    values: torch.Tensor, targets: torch.Tensor, *, old_values: torch.Tensor | None = None, clip: float | None = None
) -> torch.Tensor:
    """Returns the squared error of each token ``[N]``, optionally of values clipped around the old ones (as in SB3)."""
    if clip is not None and old_values is not None:
        values = old_values + (values - old_values).clamp(-clip, clip)
    return (values - targets) ** 2


def correct_nll(log_prob: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    """Returns the mean negative log-likelihood of the tokens of correct episodes (VAPO); 0 when there are none.

    Args:
        log_prob: ``[N]``.
        correct: ``[N] bool``, the correctness flag of the token's episode (not "reward > 0").
    """
    chosen = correct.to(log_prob.dtype)
    return -(log_prob * chosen).sum() / chosen.sum().clamp(min=1.0)


def kl_estimate(log_prob: torch.Tensor, reference: torch.Tensor, *, kind: str = "k1") -> torch.Tensor:
    r"""Returns an estimate of KL(policy || reference) at each sampled token ``[N]``.

    With :math:`d = \log \pi - \log \pi_{ref}`: k1 = d (unbiased, noisy), k3 = exp(-d) - 1 + d (unbiased, never
    negative); http://joschu.net/blog/kl-approx.html.
    """
    difference = log_prob - reference
    if kind == "k1":
        return difference
    if kind == "k3":
        return torch.exp(-difference) - 1.0 + difference
    raise ValueError(f"kl estimator must be 'k1' or 'k3', got {kind!r}")
