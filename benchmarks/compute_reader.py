"""A reader that sees all chains of a prompt and says of every answer how likely it is right: what `compute` bounds by.

It is a small network fitted to the answers of the training prompts, each weighed by its chains, stopped by validation
prompts; five of them, their chances averaged. It reads everything that the pool tells: kind of task, how often each
answer came, scores, likelihoods and lengths, of the answer, of its rival and of the prompt. A better reader would make
`unlabelled_oracle` higher: its log-loss, and how often its favourite is right, are told with the bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from treegym.envs.compute.pool import ChainPool

__all__ = ["Reading", "read"]

NETWORKS, PASSES, BATCH = 5, 60, 512


class Reading(NamedTuple):
    """What the reader makes of a pool."""

    chance: np.ndarray  # [C] float64, of each chain's answer being right
    log_loss: float  # on held-out prompts, per chain
    favourite: float  # how often the likeliest answer of a held-out prompt is right
    claimed: float  # and how often it says so


def read(chains: ChainPool) -> Reading:
    """Returns the chances of all chains; fitted to training and validation prompts alone."""
    facts, right, often, prompt, answer = _answers(chains)
    split = np.array(chains.splits)[prompt]
    train = split == "train"
    middle, spread = facts[train].mean(axis=0), facts[train].std(axis=0) + 1e-6
    inputs = torch.from_numpy(((facts - middle) / spread).astype(np.float32))
    targets, weights = (torch.from_numpy(values.astype(np.float32)) for values in (right, often))
    fitted = [_fitted(inputs, targets, weights, train, split == "validation", seed) for seed in range(NETWORKS)]
    said = np.mean(fitted, axis=0).astype(np.float64)
    held = np.flatnonzero(split == "test")
    sure = np.clip(said[held], 1e-6, 1 - 1e-6)
    loss = -(right[held] * np.log(sure) + (1 - right[held]) * np.log(1 - sure))
    tops = [mine[said[mine].argmax()] for q in chains.roots_in("test") if len(mine := np.flatnonzero(prompt == q))]
    table = {(q, a): chance for q, a, chance in zip(prompt.tolist(), answer.tolist(), said.tolist(), strict=True)}
    owner = np.repeat(np.arange(chains.num_prompts), np.diff(chains.start))
    chance = [table.get(key, 0.0) for key in zip(owner.tolist(), chains.answer.tolist(), strict=True)]
    return Reading(
        np.array(chance), float(np.average(loss, weights=often[held])), float(right[tops].mean()),
        float(said[tops].mean()),
    )  # fmt: skip


def _answers(chains: ChainPool) -> tuple[np.ndarray, ...]:
    """Returns facts ``[n, F]``, whether right, chains, prompt and number of every answer of every prompt ``[n]``."""
    kinds = sorted(set(chains.kinds))
    facts, right, often, owner, number = [], [], [], [], []
    longest = float(chains.length.max())
    for q in range(chains.num_prompts):
        here = chains.chains(q)
        answer, score = chains.answer[here], chains.score[here].astype(np.float64)
        likely, length = chains.likelihood[here][:, -1].astype(np.float64), chains.length[here] / longest
        whole, stated = len(answer), answer >= 0
        found = np.unique(answer[stated])
        counts = np.array([(answer == a).sum() for a in found])
        bests = np.array([score[answer == a].max() for a in found])
        for i, a in enumerate(found.tolist()):
            mine, others = answer == a, np.arange(len(found)) != i
            facts.append([
                counts[i] / whole, np.log(counts[i] / whole), counts[others].max(initial=0) / whole, bests[i],
                score[mine].mean(), score[mine].min(), bests[others].max(initial=0.0), score[mine].sum() / whole,
                score[mine].sum() / max(score[stated].sum(), 1e-9), bests[i] >= bests.max(), likely[mine].max(),
                likely[mine].mean(), length[mine].mean(), length[mine].std(), score.mean(), score.std(),
                len(found) / whole, length.mean(), 1 - stated.mean(), *(kind == chains.kinds[q] for kind in kinds),
            ])  # fmt: skip
            right.append(chains.right[q, a])
            often.append(counts[i])
            owner.append(q)
            number.append(a)
    columns = (np.array(column, np.float64) for column in (facts, right, often))
    return (*columns, np.array(owner), np.array(number))


def _fitted(
    inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, train: np.ndarray, check: np.ndarray, seed: int
) -> np.ndarray:
    """Returns the chances ``[n]`` by the network whose loss on the `check` rows was least on the way."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # where the layers' first weights come from
    net = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], 64), torch.nn.Tanh(), torch.nn.Linear(64, 32), torch.nn.Tanh(),
        torch.nn.Linear(32, 1),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            net(inputs[rows])[:, 0], targets[rows], reduction="none"
        )
        return (each * weights[rows]).sum() / weights[rows].sum()

    rows, watched = (torch.from_numpy(np.flatnonzero(mask)) for mask in (train, check))
    least, said = float("inf"), np.zeros(len(inputs), np.float32)
    for _ in range(PASSES):
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
        with torch.no_grad():
            if (now := float(loss(watched))) < least:
                least, said = now, torch.sigmoid(net(inputs)[:, 0]).numpy()
    return said
