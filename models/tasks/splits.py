"""Disjoint splits by construction: a prompt's own hash says to which split it belongs, whoever asks and whenever."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.models.tasks.base import Problem, TaskKind

__all__ = ["SPLITS", "Split", "sample", "split_of", "stream"]

Split = Literal["forge", "train", "validation", "test"]
# "forge" is what the models learn from; the other three are the roots of trees, new to every model alike.
SPLITS: dict[Split, range] = {
    "forge": range(0, 60),
    "train": range(60, 75),
    "validation": range(75, 85),
    "test": range(85, 100),
}
_PATIENCE = 20_000  # draws without a new prompt after which a kind counts as exhausted


def split_of(prompt: str) -> Split:
    """Returns the split of a prompt, a function of its text alone."""
    bucket = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest(), "little") % 100
    return next(split for split, buckets in SPLITS.items() if bucket in buckets)


def stream(kinds: Sequence[TaskKind], *, split: Split, seed: int | Sequence[int] = 0) -> Iterator[Problem]:
    """Yields problems of a split without end, the kinds in turn; prompts may come again."""
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}.{suggest(split, SPLITS)}")
    rng = np.random.default_rng(seed)
    while True:
        for kind in kinds:
            prompt = kind.sample(rng)
            while split_of(prompt) != split:
                prompt = kind.sample(rng)
            yield kind.problem(prompt)


def sample(kinds: Sequence[TaskKind], count: int, *, split: Split, seed: int = 0) -> list[Problem]:
    """Returns `count` problems with different prompts, the kinds in turn."""
    problems: list[Problem] = []
    seen: set[str] = set()
    sources = [stream([kind], split=split, seed=(seed, index)) for index, kind in enumerate(kinds)]
    while len(problems) < count:
        kind_index = len(problems) % len(kinds)
        for _ in range(_PATIENCE):
            problem = next(sources[kind_index])
            if problem.prompt not in seen:
                break
        else:
            raise ConfigError(
                f"there are no {count} different {split} prompts: {kinds[kind_index].name!r} ran out after "
                f"{len(problems)} in all; ask for fewer"
            )
        seen.add(problem.prompt)
        problems.append(problem)
    return problems
