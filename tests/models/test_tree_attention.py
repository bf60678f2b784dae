"""A tree scored in one pass equals every path scored on its own."""

import numpy as np
import pytest

from treegym.models.local.tree_attention import ancestor_mask
from treegym.models.tree_scores import Branches, score_trees, score_trees_naively


def random_branches(rng: np.random.Generator, vocab: int, nodes: int) -> Branches:
    prompt = tuple(int(i) for i in rng.integers(2, vocab, size=rng.integers(1, 9)))
    parents = np.array([rng.integers(-1, node) for node in range(nodes)], np.int32)
    return Branches(prompt, rng.integers(1, vocab, size=nodes).astype(np.int32), parents)


def test_ancestor_mask_by_hand() -> None:
    # node 0 is a root, 1 and 2 its children, 3 a child of 1: it sees 0, 1 and itself
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    np.testing.assert_array_equal(ancestor_mask(np.array([-1, 0, 0, 1])), np.array(expected, bool))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3"])
def test_equal_to_naive(family, make_model) -> None:
    # a window of 4 makes gemma's local layers forget: the tree's mask has to forget by depth, not by place in the row
    model = make_model(family, window=4, batch_tokens=200)
    rng = np.random.default_rng(7)
    trees = [random_branches(rng, model.tokenizer.vocab_size, nodes) for nodes in (0, 1, 30, 55)]
    fast = score_trees(model, trees, best=3, worst=2, hidden=True)
    model.share_beginnings = False  # the definition: every path on its own
    naive = score_trees_naively(model, trees, best=3, worst=2, hidden=True)
    for a, b in zip(fast, naive, strict=True):
        np.testing.assert_allclose(a.logp, b.logp, atol=1e-4)
        np.testing.assert_allclose(a.best_logp, b.best_logp, atol=1e-4)
        np.testing.assert_allclose(a.worst_logp, b.worst_logp, atol=1e-4)
        np.testing.assert_allclose(a.hidden, b.hidden, atol=1e-3)
        assert np.ptp(b.best_logp) > 0.1 or not len(a.logp)  # the models do tell contexts apart


def test_padding_is_never_proposed(make_model) -> None:
    model = make_model("llama")
    rng = np.random.default_rng(1)
    [scores] = score_trees(model, [random_branches(rng, 24, 10)], best=100, worst=100)
    assert scores.best_ids.shape == (11, 23)  # 24 tokens without the padding token
    assert not (scores.best_ids == model.tokenizer.pad_id).any()
    assert not (scores.worst_ids == model.tokenizer.pad_id).any()
