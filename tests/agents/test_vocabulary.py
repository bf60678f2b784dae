"""Chunked vocabulary losses against the plain ones, in float64: values and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treegym.agents.fast import vocabulary
from treegym.agents.fast.vocabulary import Head, draw, likeliest, read, token_log_probs

N, D, V, K = 13, 6, 300, 3
ENDS, BARRED = torch.tensor([5, 9, 200]), torch.tensor([0, 17])


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "BLOCK", 4 * V)  # four rows a block: 13 states take four blocks, one unfinished


def _inputs(*, bias: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((N, D), (V, D), (V,))]
    for tensor in made:
        tensor.requires_grad_(True)
    return (*made[:2], made[2]) if bias else (*made[:2],)


def _plain(head: Head, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns the whole table of log-probabilities, ends folded into the first."""
    z = states @ weight.t()
    z = z if bias is None else z + bias
    z = z if not head.cap else torch.tanh(z / head.cap) * head.cap
    if head.barred is not None:
        z = z.index_fill(1, head.barred, -torch.inf)
    if head.ends is not None:
        end = z[:, head.ends].logsumexp(1)
        z = z.index_fill(1, head.ends, -torch.inf).index_copy(1, head.ends[:1], end[:, None])
    return torch.log_softmax(z, 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("ends", [None, ENDS])
@pytest.mark.parametrize("barred", [None, BARRED])
def test_log_probs_and_entropy_are_those_of_the_whole_table(
    bias: bool, cap: float | None, ends: torch.Tensor | None, barred: torch.Tensor | None
) -> None:
    tokens = torch.tensor([5, 1, 2, 5, 44, 299, 5, 3, 120, 250, 1, 1, 5])
    weights = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = _inputs(bias=bias)
    own_bias = inputs[2] if bias else None
    head = Head(inputs[1], own_bias, cap, ends, barred)
    log_probs, entropy = token_log_probs(inputs[0], head, tokens)
    ours = torch.autograd.grad((log_probs * weights[0] + entropy * weights[1]).sum(), inputs)

    table = _plain(head, *inputs[:2], own_bias)
    chosen = table.gather(1, tokens[:, None])[:, 0]
    finite = torch.where(torch.isinf(table), 0.0, table)
    spread = -(table.exp() * finite).sum(1)
    theirs = torch.autograd.grad((chosen * weights[0] + spread * weights[1]).sum(), inputs)
    assert torch.allclose(log_probs, chosen, atol=1e-10)
    assert torch.allclose(entropy, spread, atol=1e-10)
    for mine, plain in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, plain, atol=1e-10)


def test_a_gradient_of_the_log_probability_alone_needs_no_mean() -> None:
    states, weight = _inputs(bias=False)
    tokens = torch.arange(N)
    head = Head(weight)
    ours = torch.autograd.grad(token_log_probs(states, head, tokens, entropy=False)[0].sum(), (states, weight))
    table = torch.log_softmax(states @ weight.t(), 1)
    theirs = torch.autograd.grad(table.gather(1, tokens[:, None]).sum(), (states, weight))
    for mine, plain in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, plain, atol=1e-10)


def test_several_tokens_and_the_total_have_their_own_gradients() -> None:
    states, weight = _inputs(bias=False)
    tokens = torch.arange(N * K).reshape(N, K) % V
    said = read(states, Head(weight), tokens)
    ours = torch.autograd.grad((said.picked**2).sum() + said.total.sum(), (states, weight))
    z = states @ weight.t()
    theirs = torch.autograd.grad((z.gather(1, tokens) ** 2).sum() + z.logsumexp(1).sum(), (states, weight))
    for mine, plain in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, plain, atol=1e-10)


def test_no_table_of_all_rows_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest block of logits that backward and forward lay out has as many rows as are allowed."""
    seen: list[int] = []
    plain = torch.nn.functional.linear

    def watched(states: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        return plain(states, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    states, weight = _inputs(bias=False)
    token_log_probs(states, Head(weight), torch.arange(N))[0].sum().backward()
    assert seen == [4, 4, 4, 1] * 2


def test_draws_follow_the_distribution() -> None:
    """Of a state whose ends weigh 3/8 together and whose barred token would weigh most, in 4,000 draws."""
    weight = torch.full((V, 1), -50.0)
    for token, share in ((5, 1.0), (9, 2.0), (3, 4.0), (250, 1.0), (17, 100.0)):
        weight[token] = float(np.log(share))
    head = Head(weight, ends=torch.tensor([5, 9]), barred=torch.tensor([17]))
    uniform = torch.from_numpy(np.random.default_rng(0).random(4000))
    tokens, log_probs = draw(torch.ones(4000, 1), head, uniform)
    expected = {5: 3 / 8, 3: 4 / 8, 250: 1 / 8}
    assert set(tokens.tolist()) == set(expected)
    for token, share in expected.items():
        hits = tokens == token
        assert abs(float(hits.float().mean()) - share) < 4 * (share * (1 - share) / 4000) ** 0.5
        assert torch.allclose(log_probs[hits], torch.tensor(share).log(), atol=1e-5)


def test_the_likeliest_counts_all_ends_together() -> None:
    weight = torch.zeros(V, 1)  # 0.6 and 0.5 at the ends: together e^0.6 + e^0.5 = 3.47, more than e^1 = 2.72
    weight[5], weight[9], weight[3] = 0.6, 0.5, 1.0
    states = torch.ones(2, 1)
    assert likeliest(states, Head(weight, ends=torch.tensor([5, 9]))).tolist() == [5, 5]
    assert likeliest(states, Head(weight)).tolist() == [3, 3]
