"""Learning from trees of episodes: every shared beginning once (`packing="trees"`), against sequence by sequence.

Updates (forward, loss, backward) per CPU second of a Llama with random weights, on trees of 16 texts of 128 tokens
whose tokens are shared 2, 4 and 8 times; the same loss and gradient (tests/agents/test_lm_tree.py). "sequences" reads
all texts in one batch without padding; "packed by hand" is the project's own Llama, which reads the common beginning of
a group once.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch
from common import cpu_seconds, emit, interleaved, median_ratio, parse, table
from transformers import LlamaConfig, LlamaForCausalLM

from treegym.agents.fast.llama import Llama
from treegym.agents.fast.packing import Packed
from treegym.agents.policies.lm_tree import Shape, context_trees, tree_states

TEXTS, LENGTH = 16, 128


def texts(sharing: float, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Returns texts ``[groups * 16, 128]`` that branch in four twice, their tokens shared so many times on average."""
    total = TEXTS * LENGTH
    second = round((total - total / sharing) / (TEXTS - 2 * 0.8))  # p1 + 4 (p2 - p1) + 16 (L - p2), p1 = 0.8 p2
    first = round(0.8 * second)
    made = rng.integers(0, 64, size=(groups, TEXTS, LENGTH))
    made[:, :, :first] = made[:, :1, :first]
    for branch in range(4):
        family = made[:, 4 * branch : 4 * branch + 4]
        family[:, :, first:second] = family[:, :1, first:second]
    return made.reshape(groups * TEXTS, LENGTH).astype(np.int32)


def main() -> None:
    args = parse(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=LENGTH,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    by_hand = Llama.of(model.base_model)
    assert by_hand is not None
    figures: dict[str, float] = {}
    cells = []
    for sharing in (2, 4, 8):
        contexts = texts(sharing, 2 if args.quick else 4, rng)
        ids = torch.from_numpy(contexts.astype(np.int64))
        count = len(contexts)
        episode, at = np.repeat(np.arange(count), LENGTH - 1), np.tile(np.arange(LENGTH - 1), count)
        wanted = ids[:, 1:].reshape(-1, 1)
        distinct = sum(len(tree.ids) for tree in context_trees(contexts))
        length = np.full(count, LENGTH)
        common = np.full(count, round(0.8 * round((TEXTS * LENGTH) * (1 - 1 / sharing) / (TEXTS - 1.6))))

        def learn(states: torch.Tensor, wanted: torch.Tensor = wanted) -> None:
            model.zero_grad()
            torch.log_softmax(model.lm_head(states), -1).gather(1, wanted).mean().backward()

        def trees(ids: torch.Tensor = ids, episode: np.ndarray = episode, at: np.ndarray = at) -> None:
            learn(tree_states(ids, episode, at, layers=model.base_model, shape=Shape(config, torch.float32)))

        def sequences(ids: torch.Tensor = ids) -> None:
            learn(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1))

        def hand() -> None:
            packed, where = Packed.of_episodes(contexts, common, length)  # noqa: B023 (called within the loop)
            learn(by_hand.states(packed)[torch.from_numpy(where[episode, at])])  # noqa: B023

        work = {"trees": trees, "sequences": sequences, "packed by hand": hand}
        times = interleaved(work, rounds=3 if args.quick else 11, clock=cpu_seconds)
        figures[f"packed_over_sequences_{sharing}"] = median_ratio(times["sequences"], times["trees"])
        figures[f"packed_over_by_hand_{sharing}"] = median_ratio(times["packed by hand"], times["trees"])
        shared = count * LENGTH / distinct
        cells += [
            {"sharing": shared, "path": name, "updates per CPU second": 1 / statistics.median(t)}
            for name, t in times.items()
        ]
    print(table(cells))
    emit("tree_packing", figures, cells)


if __name__ == "__main__":
    main()
