"""AdamW on weights of low precision: small steps add up, weights of float32 are stepped as PyTorch steps them."""

from __future__ import annotations

import torch
from torch import nn

from treegym.agents.fast.masters import MasterAdamW
from treegym.agents.state import optimizer_state, set_optimizer_state


def _pull(weight: nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()


def test_float32_weights_are_stepped_as_ever() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 8)) for _ in range(2))
    settings = {"lr": 1e-2, "eps": 1e-8, "weight_decay": 0.1}
    _pull(ours, MasterAdamW([ours], **settings), 5)
    _pull(theirs, torch.optim.AdamW([theirs], **settings), 5)
    torch.testing.assert_close(ours, theirs)


def test_steps_too_small_for_bfloat16_add_up() -> None:
    # Adam's step of a steady gradient is the rate: 1e-4, and 1 has neighbours at 1 - 2^-8 = 0.996 and below. 100 steps
    # make 0.99, which lies between 0.98828125 and 0.9921875, nearer to the former.
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    _pull(weight, MasterAdamW([weight], lr=1e-4, weight_decay=0.0), 100)
    assert weight.tolist() == [0.98828125] * 4
    lost = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    _pull(lost, torch.optim.AdamW([lost], lr=1e-4, weight_decay=0.0), 100)
    assert lost.tolist() == [1.0] * 4


def test_a_state_comes_back_unrounded() -> None:
    first = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterAdamW([first], lr=1e-4)
    _pull(first, optimizer, 7)
    values, arrays = optimizer_state(optimizer)
    second = nn.Parameter(first.detach().clone())
    other = MasterAdamW([second], lr=1e-4)
    set_optimizer_state(other, values, arrays)
    for key in ("master", "exp_avg", "exp_avg_sq"):
        assert other.state[second][key].dtype == torch.float32
        assert torch.equal(other.state[second][key], optimizer.state[first][key])
    _pull(first, optimizer, 20)
    _pull(second, other, 20)
    assert torch.equal(other.state[second]["master"], optimizer.state[first]["master"])
