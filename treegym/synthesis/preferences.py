"""RLAIF: two answers to every prompt, compared by a judge in both orders, or by the verifier.

Preferences of a model in place of people's (Bai et al. 2022, https://arxiv.org/abs/2212.08073; Lee et al. 2023,
https://arxiv.org/abs/2309.00267). A judge that names the other answer when the two change places has followed the
place: such pairs, ties and failures are kept apart and never become preferences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from treegym.errors import ConfigError, DataError
from treegym.rewards.judge.prompt import Case
from treegym.synthesis.writer import Text, Writer
from treegym.tree.roots import Root

__all__ = ["Compares", "Verified", "compared", "preferences", "verdict_of"]

Row = dict[str, Any]


class Compares(Protocol):
    """What is needed of a judge; the judge term satisfies it."""

    def orders(self, cases: Sequence[Case]) -> tuple[list[tuple[float, ...] | None], dict[int, str]]: ...


class Verified:
    """The verifier as a judge of pairs: the right answer is better than the wrong one."""

    def __init__(self, prompts: Sequence[Root], verify: Callable[[Root, str], float]) -> None:
        self._roots = {root.prompt: root for root in prompts}
        self._verify = verify

    def orders(self, cases: Sequence[Case]) -> tuple[list[tuple[float, ...] | None], dict[int, str]]:
        scores: list[tuple[float, ...] | None] = []
        for case in cases:
            first, second = (self._verify(self._roots[case.prompt], text or "") for text in (case.answer, case.rival))
            scores.append((0.5 + 0.5 * ((first >= 0.5) - (second >= 0.5)),))
        return scores, {}


def preferences(
    prompts: Sequence[Root],
    writer: Writer,
    judge: Compares,
    *,
    temperatures: tuple[float, float] = (0.3, 1.0),
    pairwise: bool = True,
    margin: float = 0.1,
    seed: int = 0,
) -> tuple[list[Row], list[Row]]:
    """Returns pairs (prompt, chosen, rejected and how they came to be), and what was kept apart with the reason.

    Args:
        prompts: one pair is made for each.
        writer: answers them; answers that were cut at its longest are not compared.
        judge: compares the answers.
        temperatures: of the two answers.
        pairwise: show the judge both answers, in both orders; otherwise it scores each by itself.
        margin: by how much a score must be from a tie.
        seed: of the answers.
    """
    if not prompts:
        raise DataError("there are no prompts to answer")
    if min(temperatures) < 0 or not 0 <= margin < 0.5:
        raise ConfigError(
            f"the temperatures are {temperatures} and the margin {margin}; numbers from 0 on, and a margin below 0.5, "
            "were expected"
        )
    asked = [root.prompt for root in prompts]
    both = [
        writer.write(asked, temperature=temperature, seed=seed * 1_000_000 + place * 500_000)
        for place, temperature in enumerate(temperatures)
    ]
    answers = list(zip(*both, strict=True))
    differ = [
        place
        for place, (first, second) in enumerate(answers)
        if first.ended and second.ended and first.text.strip() != second.text.strip()
    ]
    scores, why = compared([_case(asked[p], *answers[p]) for p in differ], judge, pairwise=pairwise)
    told = dict(zip(differ, zip(scores, range(len(differ)), strict=True), strict=True))
    pairs: list[Row] = []
    apart: list[Row] = []
    for place, (first, second) in enumerate(answers):
        row: Row = {"prompt": asked[place], "by": writer.model.name, "temperatures": list(temperatures), "seed": seed}
        score, number = told.get(place, (None, -1))
        if not (first.ended and second.ended):
            verdict = "cut"
        else:
            verdict = "equal answers" if number < 0 else why.get(number) or verdict_of(score or (), margin)
        if verdict in ("first", "second"):
            chosen, rejected = (first, second) if verdict == "first" else (second, first)
            row |= {"chosen": chosen.text, "rejected": rejected.text, "chosen_at": temperatures[chosen is second]}
            pairs.append({**row, "scores": _rounded(score)})
        else:
            apart.append({**row, "answers": [first.text, second.text], "scores": _rounded(score), "why": verdict})
    return pairs, apart


def compared(
    cases: Sequence[Case], judge: Compares, *, pairwise: bool
) -> tuple[list[tuple[float, ...] | None], dict[int, str]]:
    """Returns the first answers' scores against their rivals, 1/2 being a tie, and the reasons of failures.

    Args:
        cases: answers with rivals.
        judge: whoever judges.
        pairwise: show it both answers, in both orders; otherwise it scores each by itself.
    """
    if pairwise or not cases:
        return judge.orders(cases) if cases else ([], {})
    alone = [Case(case.prompt, text or "") for case in cases for text in (case.answer, case.rival)]
    found, reasons = judge.orders(alone)
    scores: list[tuple[float, ...] | None] = []
    for first, second in zip(found[::2], found[1::2], strict=True):
        scores.append(None if first is None or second is None else (0.5 + (first[0] - second[0]) / 2.0,))
    return scores, {at // 2: reason for at, reason in reasons.items()}


def verdict_of(scores: Sequence[float], margin: float) -> str:
    """Returns what the first answer's scores say, one per order: first, second, tie, or order (they disagree)."""
    says = {"first" if score > 0.5 + margin else "second" if score < 0.5 - margin else "tie" for score in scores}
    return says.pop() if len(says) == 1 else "order"


def _case(prompt: str, first: Text, second: Text) -> Case:
    return Case(prompt, first.text, None, second.text)


def _rounded(scores: Sequence[float] | None) -> list[float] | None:
    return None if scores is None else [round(score, 4) for score in scores]
