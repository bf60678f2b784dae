"""A text longer than a model's positions is refused; answers end where the positions do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models.local.kv_cache import TreeCache
from treegym.models.local.speculative import SpeculativeModel
from treegym.models.tree_scores import Branches

POSITIONS = 128  # of the tiny models
FITS = [2 + i % 20 for i in range(POSITIONS)]
LONG = [*FITS, 5]
CALLS = {
    "next_logprobs": lambda model, ids: model.next_logprobs([[3], ids]),
    "top_logprobs": lambda model, ids: model.top_logprobs([[3], ids], 2),
    "embed": lambda model, ids: model.embed([[3], ids]),
    "score": lambda model, ids: model.score([[3], ids], [[4], [4]]),
    "generate": lambda model, ids: model.generate([[3], ids], max_new_tokens=2),
    "shared": lambda model, ids: model.next_logprobs([[*ids[:-1], token] for token in range(2, 12)]),
    "speculative": lambda model, ids: SpeculativeModel(model, model).generate([[3], ids], max_new_tokens=2),
    "tree": lambda model, ids: model.score_trees([Branches(tuple(ids[:-1]), np.array([5]), np.array([-1]))]),
    "cache": lambda model, ids: _cached(model, ids),
}


def _cached(model: Any, ids: list[int]) -> np.ndarray:
    cache = TreeCache(model)
    return cache.next_logprobs([cache.add_path(ids)])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("call", CALLS)
def test_a_context_beyond_the_positions_is_refused_and_the_longest_is_not(family, call, make_model) -> None:
    model = make_model(family)
    CALLS[call](model, FITS)
    with pytest.raises(ConfigError, match=rf"a context has 129 tokens, but {family}-0 takes 128 at most; shorten it"):
        CALLS[call](model, LONG)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("share", [False, True])
def test_answers_end_where_the_positions_do(family, share, make_model) -> None:
    model = make_model(family)
    model.share_beginnings = share
    contexts = [FITS[:length] for length in (128, 127, 125, 120, 60)]
    made = model.generate(contexts, max_new_tokens=12, stop_ids=[])
    assert [len(row) for row in made] == [1, 2, 4, 9, 12]
    model.share_beginnings = True
    assert made == [model.generate([context], max_new_tokens=12, stop_ids=[])[0] for context in contexts]
    draft = make_model(family, seed=1)
    speculative = SpeculativeModel(draft, model, adapt=False)
    assert speculative.generate(contexts, max_new_tokens=12, stop_ids=[]) == made


def test_a_model_without_such_a_limit_takes_any_length(make_model) -> None:
    model = make_model("llama")
    model.config.max_position_embeddings = -1
    assert model.context_length is None
    assert model.next_logprobs([LONG]).shape == (1, model.tokenizer.vocab_size)
    assert len(model.generate([LONG], max_new_tokens=3, stop_ids=[])[0]) == 3


def test_positions_stretched_by_yarn_count(make_model) -> None:
    model = make_model("llama")
    model.config.rope_parameters = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert model.context_length == 512
