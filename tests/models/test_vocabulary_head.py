"""Readings block by block against whole rows: log-probabilities, masses of sets, ranks, folded ends, odd sizes."""

import numpy as np
import pytest
import torch

from treegym.models.local import vocabulary_head
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.local.vocabulary_head import read_vocabulary
from treegym.models.readings import Question
from treegym.models.tree_scores import Branches, allowed_tokens, score_trees

from .conftest import tiny_network


@pytest.fixture(params=[64, 100, 5000])
def model(request, byte_bpe, monkeypatch) -> TransformersModel:
    monkeypatch.setattr(vocabulary_head, "BLOCK", request.param)  # several blocks, one that is cut, one for all
    monkeypatch.setattr(vocabulary_head, "ROWS", 3)
    network = tiny_network("llama", seed=3, vocab=byte_bpe.vocab_size, width=32, window=None)
    return TransformersModel(network, byte_bpe).ending_at(["a"])


def test_everything_asked_equals_whole_rows(model) -> None:
    torch.manual_seed(0)
    states = torch.randn(7, 32)
    logprobs = torch.log_softmax(model.logits(states), -1).numpy()
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 7, 40))
    tokens = rng.integers(0, model.tokenizer.vocab_size, 40)
    tokens[:5] = model.tokenizer.eos_id
    tokens[5:8] = model.ends[1]
    free = np.setdiff1d(np.arange(model.tokenizer.vocab_size), model.ends)
    sets = [free[10:60], free[::7], free[:0]]
    questions = [Question(chosen, np.array([5, 0, 3])) for chosen in sets]
    allowed = allowed_tokens(model)
    said = read_vocabulary(
        model, states, rows=rows, tokens=tokens, questions=questions, best=4, worst=3, allowed=allowed
    )
    np.testing.assert_allclose(said.singles, logprobs[rows, tokens], atol=1e-4)
    for chosen, masses in zip(sets, said.masses, strict=True):
        expected = [np.logaddexp.reduce(logprobs[row, chosen]) if len(chosen) else -np.inf for row in (0, 3, 5)]
        np.testing.assert_allclose(masses, np.array(expected)[[2, 0, 1]], atol=1e-4)
    ranked = np.where(allowed, logprobs, -np.inf)
    np.testing.assert_allclose(said.best_logp, -np.sort(-ranked, axis=1)[:, :4], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(logprobs, said.best_ids, 1), said.best_logp, atol=1e-4)
    unlikely = np.where(allowed, logprobs, np.inf)
    np.testing.assert_allclose(said.worst_logp, np.sort(unlikely, axis=1)[:, :3], atol=1e-4)


def test_ranks_beyond_the_vocabulary_are_none(model) -> None:
    allowed = np.zeros(model.tokenizer.vocab_size, bool)
    allowed[[2, 3]] = True
    said = read_vocabulary(model, torch.randn(2, 32), best=4, allowed=allowed)
    assert set(said.best_ids[0].tolist()) == {2, 3, -1}


def test_the_model_itself_uses_them_for_large_vocabularies(model) -> None:
    context = tuple(model.tokenizer.encode("the second"))
    tokens = np.array(model.tokenizer.encode(" answer is"), np.int32)
    tree = Branches(context, tokens, np.arange(-1, len(tokens) - 1, dtype=np.int32))
    whole = score_trees(model, [tree], best=3, worst=2, hidden=True)[0]
    chain = model.score([context], [tokens.tolist()])[0]
    likely = model.top_logprobs([context], 3)
    model.reads_blocks = True
    blocks = score_trees(model, [tree], best=3, worst=2, hidden=True)[0]
    for name in ("logp", "best_logp", "worst_logp", "hidden"):
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), atol=1e-4)
    np.testing.assert_array_equal(blocks.best_ids, whole.best_ids)
    np.testing.assert_allclose(model.score([context], [tokens.tolist()])[0], chain, atol=1e-4)
    np.testing.assert_allclose(model.top_logprobs([context], 3)[1], likely[1], atol=1e-4)
    made = model.generate([context], max_new_tokens=6)
    model.reads_blocks = False
    assert model.generate([context], max_new_tokens=6) == made
