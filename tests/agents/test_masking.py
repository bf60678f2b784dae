"""The one masked softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treegym.agents.masking import (
    choose,
    greedy,
    masked_entropy,
    masked_log_softmax,
    masked_log_softmax_array,
)


def _random(rows: int = 64, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = rng.random((rows, width)) < 0.5
    mask[np.arange(rows), rng.integers(width, size=rows)] = True
    return rng.normal(size=(rows, width)).astype(np.float32) * 3, mask


def test_array_and_tensor_versions_agree() -> None:
    logits, mask = _random()
    ours = masked_log_softmax_array(logits, mask)
    theirs = masked_log_softmax(torch.from_numpy(logits), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(np.exp(ours).sum(1), 1.0, rtol=1e-6)
    assert (np.exp(ours)[~mask] == 0.0).all()


def test_illegal_logits_have_no_influence_and_no_gradient() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    log_probs = masked_log_softmax(logits, mask)
    (log_probs[0, 0] + masked_entropy(log_probs).sum()).backward()
    assert logits.grad is not None
    assert logits.grad[0, 2] == 0.0
    assert torch.isfinite(logits.grad).all()
    changed = masked_log_softmax(torch.tensor([[1.0, 2.0, 1e9]]), mask)
    torch.testing.assert_close(changed[0, :2], log_probs[0, :2].detach())


def test_one_legal_child_has_entropy_zero() -> None:
    log_probs = masked_log_softmax(torch.tensor([[5.0, -3.0]]), torch.tensor([[False, True]]))
    assert float(masked_entropy(log_probs)) == 0.0
    assert float(log_probs[0, 1]) == 0.0


def test_an_empty_mask_is_an_error_everywhere() -> None:
    logits, mask = np.zeros((2, 3), np.float32), np.array([[True, True, True], [False, False, False]])
    for broken in (
        lambda: masked_log_softmax(torch.from_numpy(logits), torch.from_numpy(mask)),
        lambda: masked_log_softmax_array(logits, mask),
        lambda: choose(logits, mask, np.zeros(2)),
        lambda: greedy(logits, mask),
    ):
        with pytest.raises(ValueError, match="no legal child"):
            broken()


def test_sampling_follows_the_masked_distribution() -> None:
    logits, mask = _random(1, 6)
    draws = 40_000
    uniform = np.random.default_rng(1).random(draws)
    actions, log_probs = choose(np.repeat(logits, draws, 0), np.repeat(mask, draws, 0), uniform)
    expected = np.exp(masked_log_softmax_array(logits, mask))[0]
    np.testing.assert_allclose(np.bincount(actions, minlength=6) / draws, expected, atol=0.01)
    np.testing.assert_allclose(np.exp(log_probs), expected[actions], rtol=1e-5)


def test_the_edges_of_the_distribution_stay_legal() -> None:
    logits, mask = np.zeros((2, 4), np.float32), np.array([[False, True, True, False]] * 2)
    actions, _ = choose(logits, mask, np.array([0.0, np.nextafter(1.0, 0.0)]))
    np.testing.assert_array_equal(actions, [1, 2])
