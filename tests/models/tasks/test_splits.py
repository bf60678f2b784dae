"""Tests of the splits: disjoint by construction, reproducible, and honest when a kind runs out."""

from __future__ import annotations

import itertools

import pytest

from treegym.errors import ConfigError
from treegym.models.tasks import KINDS, SPLITS, problems, split_of, stream


def test_splits_are_disjoint_and_cover_everything() -> None:
    buckets = sorted(itertools.chain.from_iterable(SPLITS.values()))
    assert buckets == list(range(100))


def test_enough_different_prompts_in_every_split() -> None:
    seen: set[str] = set()
    for split, count in (("train", 1000), ("validation", 600), ("test", 1000)):
        found = problems(split, count, seed=1)  # type: ignore[arg-type]
        prompts = {problem.prompt for problem in found}
        assert len(prompts) == count
        assert not prompts & seen
        assert all(split_of(prompt) == split for prompt in prompts)
        seen |= prompts
        counts = [sum(problem.kind == kind for problem in found) for kind in KINDS]
        assert max(counts) - min(counts) <= 1


def test_training_stream_never_meets_a_held_out_prompt() -> None:
    for problem in itertools.islice(stream(tuple(KINDS.values()), split="forge", seed=2), 3000):
        assert split_of(problem.prompt) == "forge"


def test_seed_decides_and_more_extends_fewer() -> None:
    assert problems("test", 40, seed=4) == problems("test", 40, seed=4)
    assert problems("test", 40, seed=4) != problems("test", 40, seed=5)
    assert problems("test", 80, seed=4)[:40] == problems("test", 40, seed=4)


def test_unknown_split_and_exhausted_kind_are_errors() -> None:
    with pytest.raises(ConfigError, match="there is no split 'tset'"):
        next(stream(tuple(KINDS.values()), split="tset"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'products' ran out"):
        problems("validation", 40_000)
