"""Searches whose evaluator is a language model behind the project's own server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from treegym.models.local.fake import FakeLanguageModel
from treegym.models.remote import RemoteModel
from treegym.models.serving.server import running_server
from treegym.search import Options, Session
from treegym.search.continuous import Continuous, drive
from treegym.search.proposals import ProposedWorld


@pytest.fixture(scope="module")
def example(module_of: Callable[[str], ModuleType]) -> ModuleType:
    return module_of("examples/search_a_server.py")


def roots_of(world: ProposedWorld, model: FakeLanguageModel) -> list[Any]:
    contexts = [model.tokenizer.encode(text) for text in ("ab", "ba", "bb", "aab", "b")]
    return world.roots([(context, len(context)) for context in contexts])


@pytest.mark.parametrize("together", [1, 8])
def test_a_server_gives_what_the_model_gives_whatever_fails_on_the_way(example: ModuleType, together: int) -> None:
    model = FakeLanguageModel(seed=2)
    options = Options(solve=True)
    direct = ProposedWorld(example.Tokens(_Local(model), model.tokenizer.eos_id), most=example.MOST)
    expected = Session(
        direct, roots_of(direct, model), method="puct", num_simulations=24, options=options
    ).run()  # fmt: skip
    with running_server(model) as served:
        remote = RemoteModel(served.url, tokenizer=model.tokenizer)
        world = ProposedWorld(example.Tokens(remote, model.tokenizer.eos_id), most=example.MOST)
        rng = np.random.default_rng(0)
        hung = 0

        async def evaluate(offers: list[Any]) -> Any:
            nonlocal hung
            if rng.random() < 0.1:
                raise ConnectionError("the line is down")
            if rng.random() < 0.1 and hung < 2:
                hung += 1
                await asyncio.sleep(60)  # past the deadline
            proposed = await asyncio.to_thread(world.world.propose, [offer.state for offer in offers])
            return world.judged(offers, proposed)

        running = Continuous(
            world, method="puct", num_simulations=24, places=3, options=options, attempts=50, deadline=1.0
        )
        running.add(roots_of(world, model))
        found = asyncio.run(drive(running, evaluate, concurrency=3, together=together))
    assert hung == 2
    assert not running.failures
    for name, result in found.items():
        assert result is not None
        np.testing.assert_array_equal(result.visits[0], expected.visits[name])
        np.testing.assert_allclose(result.value[0], expected.value[name], atol=1e-5)


class _Local:
    """The same model, asked in this process."""

    def __init__(self, model: FakeLanguageModel) -> None:
        self.model = model

    def top_logprobs(self, contexts: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        whole = self.model.next_logprobs(contexts)
        ids = np.argsort(-whole, axis=1, kind="stable")[:, :k]
        return ids, np.take_along_axis(whole, ids, 1)
