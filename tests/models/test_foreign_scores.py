"""Trees scored by a model of another vocabulary, read as tries, against the marginals of whole rows."""

import numpy as np
import pytest

from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.boundary import pieces_of
from treegym.models.tokens.foreign_scores import ByteOrder
from treegym.models.tokens.retokenize import Retokenized
from treegym.models.tree_scores import Branches, rank_trees, score_trees

from .conftest import tiny_network


@pytest.mark.parametrize(("ours", "theirs"), [("character", "byte_bpe"), ("byte_bpe", "character"),
                                              ("byte_bpe", "word_piece")])  # fmt: skip
def test_scores_equal_the_definition(ours, theirs, request) -> None:
    primary, teacher = request.getfixturevalue(ours), request.getfixturevalue(theirs)
    network = tiny_network("llama", seed=5, vocab=teacher.vocab_size, width=32, window=None)
    foreign = Retokenized(TransformersModel(network, teacher, name="t"), primary)
    texts = [primary.encode(text) for text in (" 12 and 7.", " 12 or 30", " answer is 7: naïve")]
    children: dict[tuple[int, int], int] = {}
    tokens, parents = [], []
    for text in texts:
        node = -1
        for token in [*text, primary.eos_id]:
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = children[node, token]
    tree = Branches(
        tuple(primary.encode("the first answer is")), np.array(tokens, np.int32), np.array(parents, np.int32)
    )
    assert foreign.inner.reads_sets
    fast = score_trees(foreign, [tree, tree], best=3, worst=2)
    foreign.inner.reads_sets = False
    slow = score_trees(foreign, [tree], best=3, worst=2)[0]
    foreign.inner.reads_sets = True
    for found in fast:
        np.testing.assert_allclose(found.logp, slow.logp, atol=2e-3, equal_nan=True)
        np.testing.assert_array_equal(found.best_ids, slow.best_ids)
    ranks = rank_trees(foreign, [tree], best=3, worst=2)[0]
    np.testing.assert_array_equal(ranks.best_ids, slow.best_ids)
    assert np.isnan(ranks.logp).all()


def test_sets_of_tokens_by_their_bytes(byte_bpe) -> None:
    pieces = pieces_of(byte_bpe)
    order = ByteOrder(byte_bpe, without=[pieces.index(b"an")] if b"an" in pieces else [])
    for start in (b"", b"a", b"an", b" ", b"\xff", b"\xc3"):
        expected = [i for i, piece in enumerate(pieces) if piece and piece.startswith(start) and piece != b"an"]
        assert order.beginning_with(start).tolist() == expected
