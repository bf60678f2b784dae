"""Speculative decoding keeps the target's distribution, and its greedy text exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treegym.errors import ConfigError
from treegym.models.base import LanguageModel
from treegym.models.local.speculative import SpeculativeModel, accepted_prefix, best_length
from treegym.models.tree_scores import Branches, score_trees

CONTEXTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10], [11, 2], [4]]


def helpful_draft(make_model, target, noise: float):
    """Returns a copy of the target with some noise on its weights: it guesses well, but not always."""
    draft = make_model("llama", seed=1)
    draft.model.load_state_dict(target.model.state_dict())
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in draft.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise * parameter.std())
    return draft


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_greedy_equals_the_target_with_any_draft(family, adapt, make_model) -> None:
    target = make_model(family, seed=1, window=4)
    model = SpeculativeModel(make_model("qwen3", seed=2), target, proposals=3, adapt=adapt, rows=3)
    assert model.generate(CONTEXTS, max_new_tokens=12) == target.generate(CONTEXTS, max_new_tokens=12)
    assert model.report.tokens >= model.report.target_passes


def test_a_good_draft_saves_passes_and_the_rate_is_reported(make_model) -> None:
    target = make_model("llama", seed=1)
    model = SpeculativeModel(helpful_draft(make_model, target, 0.02), target, proposals=4, adapt=False)
    [made] = model.generate([[5, 6, 7]], max_new_tokens=40, stop_ids=[])
    assert [made] == target.generate([[5, 6, 7]], max_new_tokens=40, stop_ids=[])
    assert model.report.acceptance_rate > 0.5
    assert model.report.target_passes < 25  # 40 passes without a draft
    itself = SpeculativeModel(target, target, proposals=4, adapt=False)
    itself.generate([[5, 6, 7]], max_new_tokens=40, stop_ids=[])
    assert itself.report.acceptance_rate == 1.0
    assert itself.report.target_passes == 8  # 5 tokens a pass


def test_sampling_keeps_the_targets_distribution(make_model) -> None:
    """Chi-square of 3,000 sampled pairs of tokens against the target's exact joint distribution."""
    target = make_model("llama", seed=3)
    with torch.no_grad():
        target.model.get_output_embeddings().weight.mul_(0.15)  # spread out, so that many pairs are likely
    draft = helpful_draft(make_model, target, 2.0)
    model = SpeculativeModel(draft, target, proposals=2, adapt=False, rows=3000)
    context, count = [5, 6, 7], 3000
    pairs = model.generate([context] * count, max_new_tokens=2, temperature=1.0, seed=11, stop_ids=[])
    vocab = target.tokenizer.vocab_size
    first = np.exp(target.next_logprobs([context])[0].astype(np.float64))
    second = np.exp(target.next_logprobs([[*context, t] for t in range(vocab)]).astype(np.float64))
    expected = (first[:, None] * second).ravel() * count
    seen = np.bincount([a * vocab + b for a, b in pairs], minlength=vocab * vocab)
    often = expected >= 5
    assert often.sum() > 20
    cells = np.append(seen[often], seen[~often].sum()), np.append(expected[often], expected[~often].sum())
    statistic = ((cells[0] - cells[1]) ** 2 / cells[1]).sum()
    freedom = len(cells[0]) - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)  # about 4 standard deviations
    assert 0.05 < model.report.acceptance_rate < 0.95  # both branches were taken
    # the test can fail: against the draft's own distribution the same samples are far off
    wrong = np.exp(draft.next_logprobs([context])[0].astype(np.float64)) * count
    marginal = np.bincount([a for a, _ in pairs], minlength=vocab)
    likely = wrong >= 5
    far = ((marginal[likely] - wrong[likely]) ** 2 / wrong[likely]).sum()
    assert far > likely.sum() + 10 * np.sqrt(2 * likely.sum())


def test_acceptance_by_hand() -> None:
    # p / q = 0.2 / 0.8 at token 0: it is accepted in a quarter of the cases, else token 1 is drawn (excess 0, 0.6)
    draft, target = np.array([[0.8, 0.2]]), np.array([[0.2, 0.8], [1.0, 0.0]])
    rng = np.random.default_rng(0)
    results = [accepted_prefix(np.array([0]), draft, target, rng) for _ in range(4000)]
    assert set(results) == {(1, 0), (0, 1)}
    assert np.mean([accepted for accepted, _ in results]) == pytest.approx(0.25, abs=0.03)


def test_everything_else_is_the_targets(make_model) -> None:
    target = make_model("llama", seed=1)
    model = SpeculativeModel(make_model("gpt2", seed=2), target)
    assert isinstance(model, LanguageModel)
    assert model.fingerprint() == target.fingerprint()
    np.testing.assert_array_equal(model.next_logprobs(CONTEXTS), target.next_logprobs(CONTEXTS))
    np.testing.assert_array_equal(model.embed(CONTEXTS), target.embed(CONTEXTS))
    tree = Branches((2, 3), np.array([4, 5], np.int32), np.array([-1, 0], np.int32))
    np.testing.assert_array_equal(score_trees(model, [tree])[0].logp, score_trees(target, [tree])[0].logp)


def test_the_length_follows_acceptance_and_cost() -> None:
    # a = 0.5, c = 0.1: tokens per cost are 1.5 / 1.1 = 1.364, 1.75 / 1.2 = 1.458, 1.875 / 1.3 = 1.442: two is best
    assert best_length(0.5, 0.1, 8) == 2
    assert best_length(0.0, 0.1, 8) == 1
    assert best_length(1.0, 0.01, 8) == 8


def test_sampling_is_seeded_and_drafts_must_share_the_vocabulary(make_model, character) -> None:
    model = SpeculativeModel(make_model("gpt2", seed=2), make_model("llama", seed=1))
    runs = [model.generate(CONTEXTS, max_new_tokens=6, temperature=1.5, seed=s) for s in (1, 2)]
    fresh = SpeculativeModel(make_model("gpt2", seed=2), make_model("llama", seed=1))
    assert fresh.generate(CONTEXTS, max_new_tokens=6, temperature=1.5, seed=1) == runs[0] != runs[1]
    foreign = make_model("llama", seed=4)
    foreign.tokenizer = character
    with pytest.raises(ConfigError, match="vocabularies differ"):
        SpeculativeModel(foreign, make_model("llama"))
