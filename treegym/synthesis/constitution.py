"""A constitution at work: an answer, a critique of it by each principle, a revision after each critique.

Bai et al. 2022, https://arxiv.org/abs/2212.08073. The last revision over the first answer is a preference; the same
principles are the rubric of the judge that may confirm it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from treegym.errors import DataError
from treegym.rewards.judge.prompt import Case, fill
from treegym.synthesis.preferences import Compares, compared, verdict_of
from treegym.synthesis.writer import Writer
from treegym.tree.roots import Root
from treegym.untrusted import read_text

__all__ = ["CRITIQUE", "REVISION", "constitution", "read_principles"]

CRITIQUE = (
    "Question: {prompt}\nAnswer: {answer}\n\nPrinciple: {principle}\n\n"
    "Say in one or two sentences where the answer goes against the principle."
)
REVISION = (
    "Question: {prompt}\nAnswer: {answer}\n\nPrinciple: {principle}\nCritique: {critique}\n\n"
    "Write the answer again so that it follows the principle. Write only the new answer."
)
Row = dict[str, Any]


def read_principles(path: str | os.PathLike[str]) -> list[str]:
    """Returns the principles in a text file, one per line; empty lines and those that begin with # say nothing."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise DataError(f"{os.fspath(path)}: a constitution without principles; write one per line")
    return found


def constitution(
    prompts: Sequence[Root],
    writer: Writer,
    principles: Sequence[str],
    *,
    judge: Compares | None = None,
    pairwise: bool = True,
    critique: str = CRITIQUE,
    revision: str = REVISION,
    temperature: float = 0.0,
    margin: float = 0.1,
    seed: int = 0,
) -> tuple[list[Row], list[Row]]:
    """Returns pairs of the last revision over the first answer, and what was kept apart with the reason.

    Args:
        prompts: the questions.
        writer: answers, criticises and revises.
        principles: each one is gone by in turn.
        judge: confirms that the revision is better; by default nobody does.
        pairwise: show the judge both texts, in both orders; otherwise it scores each by itself.
        critique: how a critique is asked for, with ``{prompt}``, ``{answer}`` and ``{principle}``.
        revision: how a revision is asked for, with ``{critique}`` too.
        temperature: of everything that is written.
        margin: by how much the judge's score must be from a tie.
        seed: of everything that is written.
    """
    if not prompts:
        raise DataError("there are no prompts to answer")
    if not principles:
        raise DataError("a constitution without principles; give at least one")
    asked = [root.prompt for root in prompts]
    step = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000, 10_000))
    first = [text.text for text in writer.write(asked, temperature=temperature, seed=next(step))]
    latest = list(first)
    critiques: list[list[str]] = [[] for _ in asked]
    for principle in principles:
        cases = [Case(prompt, answer) for prompt, answer in zip(asked, latest, strict=True)]
        put = [fill(critique, case, principle=principle) for case in cases]
        said = [text.text.strip() for text in writer.write(put, temperature=temperature, seed=next(step))]
        put = [fill(revision, case, principle=principle, critique=c) for case, c in zip(cases, said, strict=True)]
        revised = writer.write(put, temperature=temperature, seed=next(step))
        latest = [text.text.strip() or answer for text, answer in zip(revised, latest, strict=True)]
        for held, one in zip(critiques, said, strict=True):
            held.append(one)
    rows: list[Row] = [
        {"prompt": prompt, "chosen": last, "rejected": before, "by": writer.model.name, "seed": seed, "critiques": told}
        for prompt, last, before, told in zip(asked, latest, first, critiques, strict=True)
    ]
    return _confirmed([{**row, "principles": list(principles)} for row in rows], judge, pairwise, margin)


def _confirmed(
    rows: Sequence[Row], judge: Compares | None, pairwise: bool, margin: float
) -> tuple[list[Row], list[Row]]:
    """Returns the rows whose revision is another text, and better where a judge was asked; and the others."""
    changed = [row for row in rows if row["chosen"].strip() != row["rejected"].strip()]
    apart = [{**row, "why": "nothing was changed"} for row in rows if row["chosen"].strip() == row["rejected"].strip()]
    if judge is None or not changed:
        return changed, apart
    cases = [Case(row["prompt"], row["chosen"], None, row["rejected"]) for row in changed]
    scores, why = compared(cases, judge, pairwise=pairwise)
    pairs = []
    for place, (row, score) in enumerate(zip(changed, scores, strict=True)):
        verdict = why.get(place) or verdict_of(score or (), margin)
        told = {**row, "scores": [round(one, 4) for one in score or ()]}
        if verdict == "first":
            pairs.append(told)
        else:
            apart.append({**told, "why": "the judge prefers the first answer" if verdict == "second" else verdict})
    return pairs, apart
