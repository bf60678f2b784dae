from __future__ import annotations

import math

import pytest
import torch

from treegym.agents.policies.lm_anchor import anchored, off_tree_loss

torch.set_num_threads(1)


def test_the_loss_is_what_is_left_beside_the_children() -> None:
    # p = 0.5, 0.2, 0.2, 0.1; legal children are tokens 0 and 1: -log 0.7. Token 3 stands in an illegal slot.
    vocabulary = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]])) + 3.0  # logits may be shifted
    children = vocabulary[:, [0, 1, 3]]
    loss = off_tree_loss(children, torch.logsumexp(vocabulary, 1), torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(-math.log(0.7), abs=1e-6)


def test_anchored_changes_no_value_and_adds_its_gradient() -> None:
    torch.manual_seed(0)
    base = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(5, 3, dtype=torch.int8)
    children = base[:, :3]
    out = anchored(children, torch.logsumexp(base, 1), mask, 0.4)
    assert torch.equal(out, children)
    (out**2).sum().backward()
    found = base.grad.clone()
    base.grad = None
    ((base[:, :3] ** 2).sum() + 0.4 * off_tree_loss(base[:, :3], torch.logsumexp(base, 1), mask).mean()).backward()
    torch.testing.assert_close(found, base.grad)
    base.grad = None
    (base[:, :3] ** 2).sum().backward()
    assert not torch.allclose(found, base.grad)
