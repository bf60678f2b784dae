"""The tree cache gives what the model gives, with sharing, eviction and recomputation in between."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import BackendError, ConfigError
from treegym.models.local.kv_cache import TreeCache


def random_nodes(cache: TreeCache, rng: np.random.Generator, count: int) -> list[int]:
    nodes = [cache.add_path([2, 3, 4]), cache.add_path([5, 6])]
    for _ in range(count):
        nodes.append(cache.add(int(rng.choice(nodes)), int(rng.integers(2, 24))))
    return nodes


def naive(cache: TreeCache, nodes: list[int]) -> np.ndarray:
    return cache.model.next_logprobs([[cache._token[n] for n in cache.path(node)] for node in nodes])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_equal_to_the_model_without_a_cache(family, make_model) -> None:
    cache = TreeCache(make_model(family, window=3, batch_tokens=64))
    rng = np.random.default_rng(3)
    nodes = random_nodes(cache, rng, 40)
    for _ in range(4):
        asked = [int(n) for n in rng.choice(nodes, 7)]
        np.testing.assert_allclose(cache.next_logprobs(asked), naive(cache, asked), atol=1e-4)
    assert cache.evictions == 0
    assert cache.hits > 0


def test_a_shared_path_is_computed_once(make_model) -> None:
    model = make_model("llama")
    cache = TreeCache(model)
    stem = cache.add_path(list(range(2, 22)))
    cache.hidden([stem])
    before = model.forward_tokens
    leaves = [cache.add(stem, token) for token in range(2, 12)]
    cache.hidden(leaves)
    assert model.forward_tokens - before == 10  # one token a leaf, not 21
    cache.hidden(leaves)
    assert model.forward_tokens - before == 10  # and nothing the second time
    assert cache.size == 30


def test_eviction_keeps_the_budget_and_recomputes_exactly(make_model) -> None:
    cache = TreeCache(make_model("qwen3"), budget=16, page=4)
    rng = np.random.default_rng(5)
    nodes = random_nodes(cache, rng, 60)
    for _ in range(12):
        asked = [int(n) for n in rng.choice(nodes, 5)]
        np.testing.assert_allclose(cache.next_logprobs(asked), naive(cache, asked), atol=1e-4)
        assert cache.size <= 16
        cached = cache._cached
        assert all(cache._parent[n] in cached or cache._parent[n] < 0 for n in cached)  # reaches up to a root
        for node in cached:
            assert cache._leaning[node] == sum(cache._parent[other] == node for other in cached)
    assert cache.evictions > 0
    assert len(cache._hidden) <= 16


def test_the_longest_unused_leaf_goes_first(make_model) -> None:
    cache = TreeCache(make_model("llama"), budget=4)
    stem = cache.add_path([2, 3])
    a, b, c = (cache.add(stem, token) for token in (4, 5, 6))
    cache.hidden([a])
    cache.hidden([b])  # full: stem (2 slots), a, b
    cache.hidden([a])  # a is now the younger one
    cache.hidden([c])
    assert cache._cached == {*cache.path(stem), a, c}


def test_clear_forgets_states_after_the_weights_changed(make_model) -> None:
    model = make_model("llama", seed=11)
    cache = TreeCache(model)
    node = cache.add_path([2, 3, 4])
    before = cache.next_logprobs([node])
    model.model.get_output_embeddings().weight.data.mul_(0.5)
    model.model.base_model.layers[0].mlp.up_proj.weight.data.mul_(0.5)
    cache.clear()
    assert cache.size == 0
    after = cache.next_logprobs([node])
    np.testing.assert_allclose(after, naive(cache, [node]), atol=1e-4)
    assert np.abs(after - before).max() > 1e-3


def test_what_cannot_fit_says_so(make_model) -> None:
    cache = TreeCache(make_model("llama"), budget=4)
    with pytest.raises(BackendError, match="a path of 5 tokens does not fit a cache of 4 slots"):
        cache.hidden([cache.add_path([2, 3, 4, 5, 6])])
    with pytest.raises(ConfigError, match="at least 1"):
        TreeCache(make_model("llama"), budget=0)
