"""Trees read once: scores, continuations from any node, states of one more token, and rows that become hopeless."""

import numpy as np
import pytest

from treegym.models.local import tree_attention, tree_reader
from treegym.models.tree_scores import Branches, Known, Trie, read_trees, score_trees, score_trees_naively

TREES = [
    Branches((5, 6, 7), np.array([4, 8, 9, 3], np.int32), np.array([-1, 0, 0, -1], np.int32)),
    Branches((9,), np.array([10, 11], np.int32), np.array([-1, 0], np.int32)),
]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3"])
def test_scores_and_continuations_equal_those_of_paths(family, make_model, monkeypatch) -> None:
    monkeypatch.setattr(tree_reader, "HELD", 20)  # several batches
    model = make_model(family, window=4, batch_tokens=40)
    reading = read_trees(model, TREES)
    for found, expected in zip(
        reading.scores(best=2, hidden=True), score_trees_naively(model, TREES, best=2, hidden=True), strict=True
    ):
        np.testing.assert_allclose(found.logp, expected.logp, atol=1e-4)
        np.testing.assert_allclose(found.hidden, expected.hidden, atol=1e-3)
    nodes, tokens, limits = [(0, -1), (0, 2), (0, 3), (1, 1)], [12, 4, 5, 6], [5, 3, 0, 6]
    made = reading.greedy(nodes, tokens, limits=limits, stops={model.tokenizer.eos_id})
    for (tree, node), token, limit, said in zip(nodes, tokens, limits, made, strict=True):
        context = [*TREES[tree].context(node), token]
        assert said == (model.generate([context], max_new_tokens=limit)[0] if limit else [])
    states = reading.states_after(nodes, tokens)
    contexts = [[*TREES[tree].context(node), token] for (tree, node), token in zip(nodes, tokens, strict=True)]
    np.testing.assert_allclose(states, model.embed(contexts), atol=1e-3)


def test_hopeless_rows_are_dropped_and_the_others_are_not_changed(make_model) -> None:
    model = make_model("llama")
    reading = read_trees(model, TREES)
    nodes, tokens = [(0, 0), (0, 1), (0, 2)], [4, 5, 6]
    whole = reading.greedy(nodes, tokens, limits=[6, 6, 6], stops=())
    seen = []

    def hopeless(written, ended):
        seen.append((written, sorted(ended)))
        return {1} if written >= 2 else ()

    made = reading.greedy(nodes, tokens, limits=[6, 6, 2], stops=(), hopeless=hopeless)
    assert made == [whole[0], None, whole[2][:2]]
    assert (2, [2]) in seen


def test_a_trie_holds_every_text_once() -> None:
    trie = Trie([[1, 2, 3], [1, 2], [1], [1, 4], [1, 2, 3]])
    assert trie.branches.prompt == (1,)
    assert trie.branches.tokens.tolist() == [2, 3, 4]
    assert trie.nodes.tolist() == [1, 0, -1, 2, 1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_what_all_prompts_begin_with_is_read_once_and_nothing_else_changes(family, make_model, monkeypatch) -> None:
    monkeypatch.setattr(tree_attention, "SHARED", 3)
    model = make_model(family, window=4, batch_tokens=16)  # the trees are read in two batches
    shared = (5, 6, 7, 4)
    tails = ((8,), (9, 10), (9,))
    trees = [Branches((*shared, *tail), TREES[0].tokens, TREES[0].parents) for tail in tails]
    assert tree_attention.shared_beginning(trees) == 4
    before = model.forward_tokens
    reading = read_trees(model, trees)
    assert model.forward_tokens - before <= 4 + 3 * (2 + 4)  # the beginning, then what each row holds besides
    for found, expected in zip(
        reading.scores(best=2, hidden=True), score_trees_naively(model, trees, best=2, hidden=True), strict=True
    ):
        np.testing.assert_allclose(found.logp, expected.logp, atol=1e-4)
        np.testing.assert_allclose(found.hidden, expected.hidden, atol=1e-3)
    for found, expected in zip(score_trees(model, trees), score_trees_naively(model, trees), strict=True):
        np.testing.assert_allclose(found.logp, expected.logp, atol=1e-4)
    nodes, tokens = [(0, -1), (1, 2), (2, 3)], [12, 4, 5]
    made = reading.greedy(nodes, tokens, limits=[4, 4, 4], stops=())
    for (tree, node), token, said in zip(nodes, tokens, made, strict=True):
        [expected] = model.generate([[*trees[tree].context(node), token]], max_new_tokens=4, stop_ids=())
        assert said == expected


def test_prompts_share_what_all_of_them_begin_with_but_their_last_tokens() -> None:
    def tree(*prompt: int) -> Branches:
        return Branches(prompt, np.zeros(0, np.int32), np.zeros(0, np.int32))

    long = tuple(range(20))
    assert tree_attention.shared_beginning([tree(*long, 1), tree(*long, 2, 3), tree(*long, 1, 4)]) == 20
    assert tree_attention.shared_beginning([tree(*long), tree(*long, 2)]) == 19  # the first one's last token is its own
    assert tree_attention.shared_beginning([tree(*long)]) == 0
    assert tree_attention.shared_beginning([tree(1, 2, 3), tree(1, 2, 4)]) == 0  # not worth it


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_trees_that_grew_are_read_only_where_they_are_new(family, make_model, monkeypatch) -> None:
    monkeypatch.setattr(tree_attention, "SHARED", 2)
    model = make_model(family, window=4)
    small = [
        Branches((5, 6, 7), np.array([4, 8], np.int32), np.array([-1, 0], np.int32)),
        Branches((5, 6, 9), np.array([10], np.int32), np.array([-1], np.int32)),
    ]
    # the first grew by two nodes, one of them before what was known; the second is what it was
    large = [
        Branches((5, 6, 7), np.array([4, 3, 8, 11], np.int32), np.array([-1, -1, 0, 2], np.int32)),
        small[1],
    ]
    known = Known(read_trees(model, small), [np.array([0, -1, 1, -1]), np.array([0])])
    before = model.forward_tokens
    reading = read_trees(model, large, known)
    assert model.forward_tokens - before == 2
    for found, expected in zip(
        reading.scores(best=2, hidden=True), score_trees_naively(model, large, best=2, hidden=True), strict=True
    ):
        np.testing.assert_allclose(found.logp, expected.logp, atol=1e-4)
        np.testing.assert_allclose(found.hidden, expected.hidden, atol=1e-3)
    [state] = reading.states_after([(0, 3)], [12])
    np.testing.assert_allclose(state, model.embed([[*large[0].context(3), 12]])[0], atol=1e-3)
