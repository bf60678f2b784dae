"""Losses against values worked out by hand, and where their gradients are and are not."""

from __future__ import annotations

import math

import pytest
import torch

from treegym.agents.losses import aggregate, clipped_surrogate, correct_nll, kl_estimate, value_loss


def _gradient(ratio: float, advantage: float, **clip: float | None) -> tuple[float, float]:
    """Returns the loss of one token and its gradient by the log-probability."""
    log_prob = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    loss = clipped_surrogate(log_prob, torch.zeros(1), torch.tensor([advantage]), **clip)
    loss.sum().backward()
    assert log_prob.grad is not None
    return float(loss), float(log_prob.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "learns"),
    [
        (1.25, 1.0, True),  # within 1.28
        (1.30, 1.0, False),  # above it
        (0.75, 1.0, True),  # falling of what was good is always corrected
        (0.75, -1.0, False),  # below 0.8
        (0.85, -1.0, True),
        (1.30, -1.0, True),  # rising of what was bad is always corrected
    ],
)
def test_clip_higher(ratio: float, advantage: float, learns: bool) -> None:
    loss, gradient = _gradient(ratio, advantage, clip_low=0.2, clip_high=0.28)
    if learns:
        assert loss == pytest.approx(-ratio * advantage)
        assert gradient == pytest.approx(-ratio * advantage)  # d(-r A)/d log p = -r A
    else:
        assert gradient == 0.0


def test_dual_clip_bounds_what_one_token_can_do() -> None:
    assert _gradient(9.0, -1.0, dual_clip=10.0) == (pytest.approx(9.0), pytest.approx(9.0))
    loss, gradient = _gradient(11.0, -1.0, dual_clip=10.0)
    assert (loss, gradient) == (pytest.approx(10.0), 0.0)
    assert _gradient(11.0, -1.0)[1] == pytest.approx(11.0)  # without it


def test_three_ways_to_aggregate() -> None:
    # two episodes: 2 tokens of loss 1, 8 tokens of loss 0
    token = torch.cat([torch.ones(2), torch.zeros(8)])
    lengths = torch.cat([torch.full((2,), 2.0), torch.full((8,), 8.0)])
    assert float(aggregate(token)) == pytest.approx(0.2)  # 2 / 10
    assert float(aggregate(token, mode="sample", lengths=lengths, episodes=2)) == pytest.approx(0.5)  # (1 + 0) / 2
    assert float(aggregate(token, mode="constant", episodes=2, horizon=10)) == pytest.approx(0.1)  # 2 / 20


def test_an_unknown_aggregation_is_refused() -> None:
    with pytest.raises(ValueError, match="mode 'mean'"):
        aggregate(torch.ones(1), mode="mean")


@pytest.mark.parametrize("mode", ["token", "sample", "constant"])
def test_micro_batches_add_up_to_the_whole(mode: str) -> None:
    token = torch.arange(1.0, 11.0)
    lengths = torch.cat([torch.full((2,), 2.0), torch.full((8,), 8.0)])
    given = {"mode": mode, "tokens": 10, "episodes": 2, "horizon": 10}
    whole = aggregate(token, lengths=lengths, **given)
    parts = sum(aggregate(token[i : i + 3], lengths=lengths[i : i + 3], **given) for i in range(0, 10, 3))
    assert float(parts) == pytest.approx(float(whole))


def test_likelihood_of_correct_episodes_only() -> None:
    log_prob = torch.tensor([-1.0, -2.0, -6.0])
    assert float(correct_nll(log_prob, torch.tensor([True, True, False]))) == pytest.approx(1.5)
    assert float(correct_nll(log_prob, torch.zeros(3, dtype=torch.bool))) == 0.0  # not NaN


def test_kl_estimates() -> None:
    # log p - log q = log 2: k1 = .6931, k3 = 1/2 - 1 + .6931 = .1931
    log_prob, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(kl_estimate(log_prob, reference, kind="k1")) == pytest.approx(0.6931, abs=1e-4)
    assert float(kl_estimate(log_prob, reference, kind="k3")) == pytest.approx(0.1931, abs=1e-4)
    with pytest.raises(ValueError, match="k2"):
        kl_estimate(log_prob, reference, kind="k2")


def test_value_loss_with_and_without_clipping() -> None:
    values, targets, old = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([1.0])
    assert float(value_loss(values, targets)) == 4.0
    assert float(value_loss(values, targets, old_values=old, clip=0.5)) == 2.25  # (1 + .5)^2
