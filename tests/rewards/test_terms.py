"""Each bundled term against values worked out by hand on the small tree (drawn in conftest.py)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models.local.fake import FakeLanguageModel
from treegym.rewards import build, group_bonus
from treegym.rewards.terms.diversity import diversity
from treegym.rewards.terms.kl import kl_estimate
from treegym.rewards.terms.likelihood import perplexity, sliding_window_logprobs
from treegym.rewards.terms.lmgt import advice
from treegym.rewards.terms.overlong import soft_overlong
from treegym.tree.token_tree import TokenTree


def column(spec, tree, **options):
    table = build(spec).on(tree, **options)
    table.ensure(np.arange(tree.size))
    return table.terms[:, 0]


def test_loglikelihood_sums_to_the_path(small):
    values = column("loglikelihood", small)
    assert values[[2, 4]] == pytest.approx([math.log(0.5), math.log(0.5)])
    assert values[[2, 5, 8]].sum() == pytest.approx(math.log(0.5 * 0.25 * 0.5))


def test_loglikelihood_of_a_teacher(small):
    of_ann = column({"loglikelihood": {"of": "teacher:ann"}}, small)
    assert of_ann[2] == pytest.approx(math.log(0.5) - 0.25, abs=1e-3)  # half precision
    of_bob = column({"loglikelihood": {"of": "teacher:bob", "floor": -9.0}}, small)
    assert of_bob[2] == -9.0  # no opinion
    with pytest.raises(ConfigError, match=r"Did you mean 'teacher:ann'"):
        build({"loglikelihood": {"of": "teacher:anm"}}).on(small)


def test_perplexity_is_the_textbook_value(small):
    # node 4: tokens of probability 1/2 and 1/2 -> perplexity 2; node 8: 1/2 1/4 1/2 -> 16^(1/3)
    values = column("perplexity", small)
    assert values[[4, 8]] == pytest.approx([2.0, 16 ** (1 / 3)])
    assert values[6] == pytest.approx(8**0.5)  # 1/4 and 1/2
    log = column({"perplexity": {"form": "log"}}, small)
    assert log[4] == pytest.approx(math.log(2.0))
    assert perplexity(np.log([0.5, 0.125])) == pytest.approx(4.0)  # (1/2 * 1/8)^(-1/2)


def test_windows_are_no_longer_than_the_positions_of_the_model() -> None:
    pytest.importorskip("transformers")
    from treegym.models import load_model

    model = load_model("tiny-primary", device="cpu")
    tokenizer = model.tokenizer
    tokens = tokenizer.encode("1+2=3." * 20)  # 120 of them after a prompt of 4; the model has 64 positions
    tree = TokenTree.empty(tokens=[piece.decode("latin-1") for piece in tokenizer.pieces()], eos_id=tokenizer.eos_id)
    node = tree.add_root("1+2=")
    for token in [*tokens, tokenizer.eos_id]:
        [node] = tree.add_children([node], [1], [token])
    found = column({"perplexity": {"model": "tiny-primary"}}, tree)[node]
    windows = sliding_window_logprobs(model.score, tokenizer.encode("1+2="), tokens, window=64, stride=32)
    assert found == pytest.approx(perplexity(windows))


def naive_windows(model, prompt, tokens, window, stride):
    """The same definition written the slow way: one token at a time, with the context its window gives it."""
    whole = [*prompt, *tokens]
    result = []
    for position in range(len(prompt), len(whole)):
        end = window  # the first window that holds this position
        while end <= position:
            end += stride
        begin = max(0, min(end, len(whole)) - window)
        result.append(float(model.next_logprobs([whole[begin:position]])[0, whole[position]]))
    return np.array(result)


@pytest.mark.parametrize(("window", "stride"), [(64, 32), (8, 4), (8, 1), (5, 3), (3, 2), (2, 1)])
@pytest.mark.parametrize("prompt_length", [1, 4, 11])
def test_sliding_windows_score_each_token_once_with_its_context(window, stride, prompt_length):
    model = FakeLanguageModel(seed=3)
    rng = np.random.default_rng(5)
    prompt = rng.integers(2, 40, prompt_length).tolist()
    tokens = rng.integers(2, 40, 20).tolist()
    got = sliding_window_logprobs(model.score, prompt, tokens, window=window, stride=stride)
    assert got == pytest.approx(naive_windows(model, prompt, tokens, window, stride), abs=1e-5)


def test_window_as_long_as_the_text_is_the_chain_rule():
    model = FakeLanguageModel(seed=1)
    got = sliding_window_logprobs(model.score, [5], [6, 7, 8], window=10, stride=5)
    exact = [model.next_logprobs([[5, 6, 7, 8][:i]])[0, token] for i, token in enumerate([6, 7, 8], start=1)]
    assert got == pytest.approx(exact, abs=1e-6)
    with pytest.raises(ConfigError, match="stride < window"):
        sliding_window_logprobs(model.score, [5], [6], window=4, stride=4)


def test_shortest_path_penalises_only_longer_right_answers(small):
    # root 0: right ends at depth 2 (node 4) and 3 (node 8); the wrong end (node 6) is not touched
    assert column("shortest_path", small)[[4, 6, 8]] == pytest.approx([0.0, 0.0, -0.5])
    assert column({"shortest_path": {"unit": "tokens"}}, small)[[4, 6, 8]] == pytest.approx([0.0, 0.0, -1.0])


def test_shortest_path_at_a_detected_end(small):
    ends = np.zeros(10, bool)
    ends[2] = True  # "4", right, one token: shorter than any stored end
    assert column("shortest_path", small, ends=ends)[2] == 0.0


def test_similarity(small):
    assert column("similarity", small)[[2, 3, 5, 9]] == pytest.approx([1.0, 0.5, 0.25, 0.75])


def test_soft_overlong_table():
    # Lmax 100, Lc 20: 80 -> 0, 90 -> -.5, 100 -> -1, 101 -> -1
    assert soft_overlong(np.array([10, 80, 90, 100, 101]), limit=100, cushion=20).tolist() == [0, 0, -0.5, -1, -1]


def test_soft_overlong_is_paid_where_the_budget_cuts_off(small):
    cut = np.zeros(10, bool)
    cut[9] = True
    values = column({"soft_overlong": {"limit": 3, "cushion": 2}}, small, truncated=cut)
    assert values[[4, 8, 9]].tolist() == [-0.5, -1.0, -0.5]


def test_kl_estimators():
    logp, reference = np.log([0.5]), np.log([0.25])
    d = math.log(2.0)
    assert kl_estimate(logp, reference) == pytest.approx([d])
    assert kl_estimate(logp, reference, estimator="k2") == pytest.approx([d * d / 2])
    assert kl_estimate(logp, reference, estimator="k3") == pytest.approx([0.5 - 1 + d])


def test_kl_estimators_agree_in_expectation():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
    exact = float((p * np.log(p / q)).sum())
    for estimator in ("k1", "k3"):
        assert float(p @ kl_estimate(np.log(p), np.log(q), estimator=estimator)) == pytest.approx(exact)


def test_kl_term(small):
    values = column({"kl": {"reference": "teacher:ann"}}, small)
    assert values[[2, 4, 9]] == pytest.approx([0.25] * 3, abs=2e-3)  # the teacher is 0.25 below everywhere
    assert column({"kl": {"reference": "teacher:bob", "limit": 5.0}}, small)[2] == 5.0


def test_lmgt_shifts_and_anneals(small):
    assert advice(np.array([0.9, 0.3, 0.01, np.nan]), low=0.05, high=0.5).tolist() == [1, 0, -1, 0]
    table = build({"verifier": 1.0, "lmgt": {"weight": 0.5, "guide": "primary", "low": 0.3, "high": 0.45}}).on(small)
    # probabilities: node 2 1/2 -> +1, node 3 1/4 -> -1, node 4 1/2 -> +1
    assert table.total[[2, 3, 4]].tolist() == [0.5, -0.5, 1.5]
    table.set_progress(0.5)
    assert table.total[[2, 3, 4]].tolist() == [0.25, -0.25, 1.25]
    assert table.terms[[2, 3, 4], 1].tolist() == [1, -1, 1]  # raw values stay
    assert table.raw(np.array([2, 3, 4])).tolist() == [0.0, 0.0, 1.0]
    table.set_progress(1.0)
    assert table.total[[2, 3, 4]].tolist() == [0.0, 0.0, 1.0]


def test_diversity_within_a_group():
    # bigrams: {12,23}, {12,24}, and {78}: overlaps 1/3, 0, 0
    paths = [[1, 2, 3], [1, 2, 4], [7, 8], [1, 2, 3]]
    values = diversity(paths, ["a", "a", "a", "b"])
    assert values == pytest.approx([1 - (1 / 3) / 2, 1 - (1 / 3) / 2, 1.0, 0.0])
    assert diversity([[1], [1]], [0, 0]).tolist() == [0.0, 0.0]


def test_group_bonus(small):
    reward = build({"verifier": 1.0, "diversity": {"weight": 0.1, "n": 1}})
    assert reward.on(small).total[4] == 1.0  # nothing of it in the tree
    # sets {1,2} and {2,3}: overlap 1/3
    assert group_bonus(reward, [[1, 2], [2, 3]], [0, 0]) == pytest.approx([0.1 * 2 / 3] * 2)
    assert group_bonus(build("verifier"), [[1]], [0]).tolist() == [0.0]
