"""One end for all ways to end: EOS, other ends that the generation settings name, tokens that begin with a stop."""

from types import SimpleNamespace

import numpy as np
import torch

from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.ends import declared_ends, ends_by, text_before
from treegym.models.tree_scores import Branches, allowed_tokens, score_trees

from .conftest import tiny_network


def test_ends_that_the_generation_settings_name(byte_bpe) -> None:
    eos = byte_bpe.eos_id
    assert declared_ends(None, byte_bpe) == (eos,)
    assert declared_ends(SimpleNamespace(eos_token_id=7), byte_bpe) == (eos, 7)
    assert declared_ends(SimpleNamespace(eos_token_id=[7, eos, 10**9]), byte_bpe) == (eos, 7)


def test_tokens_that_begin_with_a_stop(byte_bpe) -> None:
    pieces = byte_bpe.pieces()
    found = ends_by(byte_bpe, ["a", "t"])
    assert {pieces[token] for token in found} == {piece for piece in pieces if piece.startswith((b"a", b"t"))}
    assert len(found) > 2
    assert ends_by(byte_bpe, []) == ()


def test_text_before_the_first_stop() -> None:
    assert text_before("Paris\nQuestion: x", ["\n", "Question"]) == ("Paris", True)
    assert text_before("Paris", ["\n"]) == ("Paris", False)


def test_the_end_has_the_mass_of_all_ends(byte_bpe) -> None:
    network = tiny_network("llama", seed=2, vocab=byte_bpe.vocab_size, width=32, window=None)
    plain = TransformersModel(network, byte_bpe)
    folded = plain.ending_at(["a"])
    assert plain.ends == (byte_bpe.eos_id,)
    context = byte_bpe.encode("the second ")
    before, after = (np.exp(model.next_logprobs([context])[0].astype(np.float64)) for model in (plain, folded))
    ends = list(folded.ends)
    assert len(ends) > 3
    assert np.isclose(after[byte_bpe.eos_id], before[ends].sum(), atol=1e-6)
    assert after[ends[1:]].sum() == 0.0
    others = np.setdiff1d(np.arange(len(before)), ends)
    np.testing.assert_allclose(after[others], before[others], atol=1e-6)
    assert not allowed_tokens(folded)[ends[1:]].any()
    assert allowed_tokens(folded)[byte_bpe.eos_id]


def test_generation_and_scores_know_the_one_end(byte_bpe) -> None:
    network = tiny_network("llama", seed=2, vocab=byte_bpe.vocab_size, width=32, window=None)
    contexts = [byte_bpe.encode(text) for text in ("the second ", "add 12", "multiply by", "drei", "12 and 7 is")]
    firsts = TransformersModel(network, byte_bpe).generate(contexts, max_new_tokens=1)
    said = [(context, byte_bpe.pieces()[first[0]]) for context, first in zip(contexts, firsts, strict=True)]
    context, piece = next(pair for pair in said if pair[1] and pair[1].isascii())
    mark = piece.decode()[0]
    model = TransformersModel(network, byte_bpe).ending_at([mark])
    assert model.generate([context], max_new_tokens=5) == [[byte_bpe.eos_id]]
    tree = Branches(tuple(context), np.array([byte_bpe.eos_id], np.int32), np.array([-1], np.int32))
    [scores] = score_trees(model, [tree], best=1)
    assert scores.best_ids[0, 0] == byte_bpe.eos_id
    assert scores.logp[0] == scores.best_logp[0, 0]
    assert torch.isfinite(torch.tensor(scores.best_logp[0])).all()
