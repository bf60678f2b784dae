r"""The whole of `losses.loss` and its gradient by logits and values, in one compiled pass; and AdamW's step.

Autograd makes some thirty small tensors per minibatch for what is a page of scalar arithmetic; for small networks that
costs more than the network.

Letters: N tokens, K children. With log-probabilities l over the legal children, a the chosen one, r = exp(l_a - old):

    d loss / d l_a       = w (-r A [unclipped] + beta KL') - c_nll [correct]
    d loss / d logit_k   = (d loss / d l_a) (1[k = a] - p_k) + w c_e p_k (l_k + H)
    d loss / d v         = 2 c_v (v - target)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import FIGURES, Lesson, Whole
from treegym.agents.masking import EMPTY_MASK
from treegym.errors import DataError

__all__ = ["Coefficients", "adam_step", "coefficients", "loss_by_kernel", "loss_gradients", "token_weights"]


FAST = {"contract", "reassoc", "nsz", "arcp"}  # NaN and infinity stay what they are


class Coefficients(NamedTuple):
    """The switches of the loss as numbers; 0 switches off where None would."""

    clip_low: float
    clip_high: float
    dual_clip: float
    ent_coef: float
    kl_beta: float
    kl_kind: int  # 1 or 3
    value: float  # c_v over the tokens of the update batch
    value_clip: float
    nll: float  # c_nll over the correct tokens of the update batch
    tokens: float  # of the update batch, for the figures


def coefficients(settings: GradientSettings, whole: Whole, kl_beta: float) -> Coefficients:
    """Returns the loss's switches as numbers."""
    return Coefficients(
        clip_low=float(whole.clip_low),
        clip_high=float(whole.clip_high),
        dual_clip=float(settings.dual_clip or 0.0),
        ent_coef=float(whole.ent_coef),
        kl_beta=float(kl_beta) if settings.kl_in == "loss" else 0.0,
        kl_kind=3 if settings.kl_estimator == "k3" else 1,
        value=float(settings.vf_coef) / whole.tokens,
        value_clip=float(settings.clip_range_vf or 0.0),
        nll=float(whole.nll_coef) / whole.correct_tokens if whole.correct_tokens else 0.0,
        tokens=float(whole.tokens),
    )


def token_weights(settings: GradientSettings, part: Lesson, whole: Whole) -> np.ndarray:
    """Returns what each token counts in the policy's loss ``[N] float32``, as `losses.aggregate` has it."""
    if settings.aggregation == "sample":
        return (1.0 / (part.length * whole.episodes)).astype(np.float32)
    share = 1.0 / whole.tokens
    if settings.aggregation == "constant":
        share = 1.0 / (whole.episodes * float(settings.horizon or 1))
    return np.full(len(part.actions), share, np.float32)


def loss_by_kernel(
    settings: GradientSettings,
    part: Lesson,
    whole: Whole,
    kl_beta: float,
    logits: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Returns the gradient by logits ``[N, K]`` and by values ``[N]``, and the figures to log."""
    by_logits, by_values = np.empty_like(logits), np.empty_like(values)
    *figures, empty = loss_gradients(
        logits, values, mask, part.actions, part.old_log_probs, part.advantages, part.targets, part.old_values,
        part.reference, part.correct, token_weights(settings, part, whole), coefficients(settings, whole, kl_beta),
        by_logits, by_values,
    )  # fmt: skip
    if empty >= 0:
        raise DataError(EMPTY_MASK)
    return by_logits, by_values, dict(zip(FIGURES, figures, strict=True))


@njit(cache=True, fastmath=FAST)
def loss_gradients(
    logits: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    actions: np.ndarray,
    old: np.ndarray,
    advantage: np.ndarray,
    target: np.ndarray,
    old_value: np.ndarray,
    reference: np.ndarray,
    correct: np.ndarray,
    weight: np.ndarray,
    c: Coefficients,
    by_logits: np.ndarray,
    by_values: np.ndarray,
) -> tuple[float, float, float, float, float, int]:
    """Writes ``by_logits [N, K]`` and ``by_values [N]``; returns `FIGURES` and the first row without a legal child.

    Args:
        logits: ``[N, K] float32``.
        values: ``[N] float32``.
        mask: ``[N, K] bool``.
        actions: ``[N] int64``.
        old: ``[N] float32``, log-probabilities of the behaviour policy.
        advantage: ``[N] float32``.
        target: ``[N] float32``, of the critic.
        old_value: ``[N] float32``.
        reference: ``[N] float32``, log-probabilities of the reference policy.
        correct: ``[N] bool``.
        weight: ``[N] float32``, what each token counts in the policy's loss.
        c: the coefficients.
        by_logits: ``[N, K] float32``, written.
        by_values: ``[N] float32``, written.
    """
    rows, width = logits.shape
    policy_loss = value_loss = entropy_sum = kl_sum = outside = 0.0
    for n in range(rows):
        high = np.float32(-np.inf)
        for k in range(width):
            if mask[n, k]:
                high = max(high, logits[n, k])
        if high == -np.inf:
            return 0.0, 0.0, 0.0, 0.0, 0.0, n
        total = np.float32(0.0)
        for k in range(width):
            p = math.exp(logits[n, k] - high) if mask[n, k] else np.float32(0.0)
            by_logits[n, k] = p
            total += p
        shift = high + math.log(total)
        entropy = 0.0
        for k in range(width):
            p = by_logits[n, k] / total
            by_logits[n, k] = p
            if p > 0.0:
                entropy -= p * (logits[n, k] - shift)
        w, a, gain = weight[n], actions[n], advantage[n]
        log_prob = logits[n, a] - shift
        difference = log_prob - old[n]
        ratio = math.exp(difference)
        objective = ratio * gain
        slope = -objective
        # Compared by ratio, not by objective: rounding must not decide whether a token within the range learns.
        if gain > 0.0 and ratio > 1.0 + c.clip_high:
            objective, slope = (1.0 + c.clip_high) * gain, 0.0
        elif gain < 0.0 and ratio < 1.0 - c.clip_low:
            objective, slope = (1.0 - c.clip_low) * gain, 0.0
        if c.dual_clip > 0.0 and gain < 0.0 and objective < c.dual_clip * gain:
            objective, slope = c.dual_clip * gain, 0.0
        if c.kl_beta != 0.0:
            slope += c.kl_beta * (1.0 - math.exp(reference[n] - log_prob)) if c.kl_kind == 3 else c.kl_beta
        slope *= w
        if correct[n]:
            slope -= c.nll
        spread = w * c.ent_coef
        for k in range(width):
            p = by_logits[n, k]
            if p > 0.0:
                by_logits[n, k] = p * (spread * (logits[n, k] - shift + entropy) - slope)
        by_logits[n, a] += slope
        error = values[n] - target[n]
        inside = True
        if c.value_clip > 0.0:
            step = min(max(values[n] - old_value[n], -c.value_clip), c.value_clip)
            inside = step == values[n] - old_value[n]
            error = old_value[n] + step - target[n]
        by_values[n] = 2.0 * c.value * error if inside else 0.0
        policy_loss -= objective
        value_loss += error * error
        entropy_sum += entropy
        kl_sum += ratio - 1.0 - difference
        if ratio < 1.0 - c.clip_low or ratio > 1.0 + c.clip_high:
            outside += 1.0
    t = c.tokens
    return policy_loss / t, value_loss / t, entropy_sum / t, kl_sum / t, outside / t, -1


@njit(cache=True, fastmath=FAST)
def adam_step(
    weights: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    step: float,
    rate: float,
    eps: float,
    decay: float,
    max_norm: float,
) -> None:
    """Takes AdamW's step on flat float32 vectors, the gradient's norm clipped; `max_norm` 0 does not clip.

    https://arxiv.org/abs/1711.05101, betas 0.9 and 0.999.
    """
    norm = 0.0
    for i in range(len(gradient)):
        norm += gradient[i] * gradient[i]
    norm = math.sqrt(norm)
    scale = np.float32(1.0)
    if max_norm > 0.0:
        scale = np.float32(min(max_norm / (norm + 1e-6), 1.0))
    first, second = np.float32(0.9), np.float32(0.999)
    rest, left = np.float32(1.0 - 0.9), np.float32(1.0 - 0.999)
    size = np.float32(rate / (1.0 - 0.9**step))
    correction = np.float32(1.0 / math.sqrt(1.0 - 0.999**step))
    small, keep = np.float32(eps), np.float32(1.0 - rate * decay)
    for i in range(len(gradient)):
        g = gradient[i] * scale
        m = first * mean[i] + rest * g
        v = second * square[i] + left * g * g
        mean[i], square[i] = m, v
        weights[i] = weights[i] * keep - size * m / (np.sqrt(v) * correction + small)
