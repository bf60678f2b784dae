"""Trees read once: scores, continuations from any node, states of one more token, and rows that become hopeless."""

import numpy as np
import pytest

from treegym.models.local import tree_reader
from treegym.models.tree_scores import Branches, Trie, read_trees, score_trees_naively

TREES = [
    Branches((5, 6, 7), np.array([4, 8, 9, 3], np.int32), np.array([-1, 0, 0, -1], np.int32)),
    Branches((9,), np.array([10, 11], np.int32), np.array([-1, 0], np.int32)),
]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3"])
def test_scores_and_continuations_equal_those_of_paths(family, make_model, monkeypatch) -> None:
    monkeypatch.setattr(tree_reader, "GATHERED", 20)  # several batches
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
