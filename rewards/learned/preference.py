"""Preference pairs: made from trees (right against wrong), from a judge (RLAIF), or read from JSONL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from treegym.errors import DataError
from treegym.files import atomic_write, read_json_lines
from treegym.rewards.judge.prompt import Case
from treegym.tree.paths import flagged_ends
from treegym.tree.token_tree import TokenTree

__all__ = ["Pair", "pairs_from_judge", "pairs_from_tree", "read_pairs", "write_pairs"]


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which the first is preferred."""

    prompt: str
    chosen: str
    rejected: str


class Judges(Protocol):
    """What `pairs_from_judge` needs of a judge; the judge term satisfies it."""

    def judge(self, cases: Sequence[Case]) -> tuple[list[float | None], dict[int, str]]: ...


def pairs_from_tree(
    source: TokenTree, *, roots: Sequence[int] | None = None, per_root: int = 8, seed: int = 0
) -> list[Pair]:
    """Returns pairs of a right and a wrong finished answer under one root.

    Args:
        source: a tree with verdicts.
        roots: which prompts to use; all by default. Keep test prompts out.
        per_root: most pairs per prompt.
        seed: which pairs are drawn where there are more.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    verdict = np.asarray(source.verdict)
    prompts = source.prompts
    for root, ends in _ends_by_root(source, roots).items():
        right, wrong = ends[verdict[ends] >= 0.5], ends[verdict[ends] < 0.5]
        for good, bad in _draw(right, wrong, per_root, rng):
            pairs.append(Pair(prompts[root], source.text(good), source.text(bad)))
    return [pair for pair in pairs if pair.chosen != pair.rejected]


def pairs_from_judge(
    source: TokenTree,
    judge: Judges,
    *,
    roots: Sequence[int] | None = None,
    per_root: int = 8,
    margin: float = 0.1,
    seed: int = 0,
) -> tuple[list[Pair], int]:
    """Returns pairs ordered by a judge instead of the verifier, and how many cases the judge failed on.

    Args:
        source: a tree; its verdicts are not looked at.
        judge: anything with ``judge(cases)``.
        roots: which prompts to use; all by default.
        per_root: pairs of answers drawn for each prompt.
        margin: a pair is kept when the scores differ by at least this much.
        seed: which pairs are drawn.
    """
    rng = np.random.default_rng(seed)
    prompts = source.prompts
    drawn: list[tuple[Case, Case]] = []
    for root, ends in _ends_by_root(source, roots).items():
        for first, second in _draw(ends, ends, per_root, rng):
            left, right = source.text(first), source.text(second)
            if left != right:
                drawn.append((Case(prompts[root], left), Case(prompts[root], right)))
    scores, _ = judge.judge([case for both in drawn for case in both])
    pairs = []
    for (first_case, second_case), (left_score, right_score) in zip(
        drawn, zip(scores[::2], scores[1::2], strict=True), strict=True
    ):
        if left_score is None or right_score is None or abs(left_score - right_score) < margin:
            continue
        good, bad = (first_case, second_case) if left_score > right_score else (second_case, first_case)
        pairs.append(Pair(good.prompt, good.answer, bad.answer))
    return pairs, sum(score is None for score in scores)


def read_pairs(path: str | Path) -> list[Pair]:
    """Reads JSONL: ``prompt``, ``chosen`` and ``rejected`` on each line. Raises DataError with the line's number."""
    pairs = [_pair(found, where) for where, found in read_json_lines(path)]
    if not pairs:
        raise DataError(f"{path}: holds no pairs; one JSON object per line with prompt, chosen, rejected was expected")
    return pairs


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Writes pairs as JSONL."""
    atomic_write(path, "".join(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs))


def _pair(found: Any, where: str) -> Pair:
    fields = ("prompt", "chosen", "rejected")
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in fields):
        raise DataError(f"{where}: an object with the texts prompt, chosen and rejected was expected")
    return Pair(*(found[name] for name in fields))


def _ends_by_root(source: TokenTree, roots: Sequence[int] | None) -> dict[int, np.ndarray]:
    """Returns the ends under each wanted root, ``[.] int64``."""
    everything = np.arange(source.size)
    ends = everything[flagged_ends(source, everything)]
    owner = np.asarray(source.root_of(ends))
    order = np.argsort(owner, kind="stable")
    ends, owner = ends[order], owner[order]
    wanted = range(len(source.root_node)) if roots is None else [int(root) for root in roots]
    cuts = {root: np.searchsorted(owner, [root, root + 1]) for root in wanted}
    return {root: ends[low:high] for root, (low, high) in cuts.items()}


def _draw(first: np.ndarray, second: np.ndarray, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Returns at most `count` different pairs, one from each side."""
    size = len(first) * len(second)
    if not size:
        return []
    chosen = rng.choice(size, size=min(count, size), replace=False)
    return [(int(first[at // len(second)]), int(second[at % len(second)])) for at in chosen]
