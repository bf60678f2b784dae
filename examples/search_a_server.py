"""Plan with a language model behind an OpenAI-compatible server: many searches, each at its own pace, none waits.

Every state is a prompt and the tokens written so far; the server proposes the likeliest next tokens. Here the project's
own server runs a bundled model; `RemoteModel` talks to vLLM, SGLang and llama.cpp in the same way.
Run it from anywhere: python search_a_server.py
"""

from __future__ import annotations

import asyncio

import numpy as np

from treegym.models import load_model
from treegym.models.remote import RemoteModel
from treegym.models.serving.server import running_server
from treegym.search import Evaluation, Options, Transition
from treegym.search.continuous import Continuous, drive
from treegym.search.proposals import Offer, Proposals, ProposedWorld

MOST, LENGTH = 4, 6  # tokens proposed for a state, and tokens of an answer


class Tokens:
    """A state is a list of token ids and how many of them the prompt has; an answer ends with the model's end token."""

    def __init__(self, model: RemoteModel, end: int) -> None:
        self.model, self.end = model, end

    def propose(self, states: list[tuple[list[int], int]]) -> Proposals:
        """Proposes the likeliest tokens: one request to the server for all of these states."""
        ids, logprobs = self.model.top_logprobs([text for text, _ in states], MOST)
        return Proposals([[int(token) for token in row] for row in ids], list(logprobs), np.zeros(len(states)))

    def step(self, states: list[tuple[list[int], int]], actions: list[int]) -> Transition:
        """Writes a token; an answer that ends in time pays 1."""
        after = [([*text, token], start) for (text, start), token in zip(states, actions, strict=True)]
        ended = np.array([text[-1] == self.end for text, _ in after])
        cut = np.array([len(text) - start >= LENGTH for text, start in after])
        return Transition(after, ended.astype(np.float32), ended | cut)


async def plan(world: ProposedWorld, roots: list[Offer]) -> Continuous:
    """Searches from all roots at once."""

    async def evaluate(offers: list[Offer]) -> Evaluation:
        proposed = await asyncio.to_thread(world.world.propose, [offer.state for offer in offers])
        return world.judged(offers, proposed)

    searches = Continuous(
        world, method="puct", num_simulations=48, places=16, deadline=60.0, options=Options(solve=True)
    )
    searches.add(roots)
    await drive(searches, evaluate, concurrency=2, together=8)
    return searches


def main() -> None:
    model = load_model("tiny-primary", device="cpu")
    with running_server(model) as served:
        remote = RemoteModel(served.url, tokenizer=model.tokenizer)
        world = ProposedWorld(Tokens(remote, model.tokenizer.eos_id), most=MOST)
        prompts = ["12+30=", "7*8=", "98-41=", "5+5="]
        contexts = [model.tokenizer.encode(prompt) for prompt in prompts]
        roots = world.roots([(context, len(context)) for context in contexts])
        found = asyncio.run(plan(world, roots))
        for name, prompt in enumerate(prompts):
            result, offer = found.results[name], roots[name]
            if result is None or offer.actions is None:
                print(f"{prompt} was given up: {found.failures[name]}")
                continue
            token = offer.actions[int(result.action[0])]
            print(f"{prompt} first token {model.tokenizer.decode([token])!r}, {int(result.visits.sum())} simulations")
        print("requests:", remote.usage.requests)


if __name__ == "__main__":
    main()
