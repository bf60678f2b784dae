"""Self-Instruct: from a few prompts a model writes more, which are answered, screened, and shown in the next round.

Wang et al. 2022, https://arxiv.org/abs/2212.10560: a model is shown a series of tasks and goes on with it; what it
wrote joins the pool unless it is too like what is there. Here a prompt also needs an answer: worked out by a rule where
prompts have one, else what most of several sampled answers say, if enough of them do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from treegym.checks import number, whole
from treegym.errors import ConfigError, DataError
from treegym.rewards.answers import AnswerRule, agrees, majority
from treegym.rewards.judge.prompt import Case
from treegym.synthesis.likeness import Likeness
from treegym.synthesis.writer import Text, Writer
from treegym.tree.roots import Root

__all__ = ["InstructSettings", "Made", "Screens", "self_instruct", "series", "tasks_in"]

OWN_SHOWN = 4  # of the prompts shown, one in so many is the model's own, as in the paper (2 of 8)
_MARK = re.compile(r"\n\s*Task\s+\d+\s*:")
Solve = Callable[[str], tuple[str, str] | None]  # a prompt -> its answer and kind, None where the rule has none
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class InstructSettings:
    """How prompts are written and answered.

    Attributes:
        rounds: after each one the pool has grown.
        asked: series that the model is asked to go on with in a round.
        shown: prompts in a series.
        temperature: of writing.
        answers: sampled answers to a prompt that no rule answers.
        agreement: the least share of them that says the same.
        most_alike: the likeness from which on a prompt is not new.
        longest: characters of a prompt.
        seed: of everything random.
    """

    rounds: int = 2
    asked: int = 64
    shown: int = 8
    temperature: float = 0.8
    answers: int = 4
    agreement: float = 0.5
    most_alike: float = 0.7
    longest: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "asked", "shown", "answers", "longest"):
            whole(name, getattr(self, name), low=1)
        whole("seed", self.seed, low=0)
        number("temperature", self.temperature, low=0.0)
        number("agreement", self.agreement, low=0.0, high=1.0)
        number("most_alike", self.most_alike, low=0.0)


class Judges(Protocol):
    """What is needed of a judge; the judge term satisfies it."""

    def judge(self, cases: Sequence[Case]) -> tuple[list[float | None], dict[int, str]]: ...


@dataclass(frozen=True, kw_only=True)
class Screens:
    """What a prompt must pass, beside being new.

    Attributes:
        likeness: with the pool; it begins empty.
        leaks: likeness with prompts that are held out, which are in it already; None where there are none.
        solve: a rule that works answers out; a prompt that it cannot answer is refused.
        perplexity: least and most, under `reader`; the least refuses what repeats itself.
        reader: whose perplexity.
        judge: scores a prompt with its answer.
        least_judged: the least score.
        rule: how an answer is found in a text.
    """

    likeness: Likeness
    leaks: Likeness | None = None
    solve: Solve | None = None
    perplexity: tuple[float, float] | None = None
    reader: Writer | None = None
    judge: Judges | None = None
    least_judged: float = 0.5
    rule: AnswerRule = field(default_factory=AnswerRule)


@dataclass
class Made:
    """Rows of a prompt file, and how many prompts were refused for what."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def self_instruct(
    seeds: Sequence[Root],
    writer: Writer,
    screens: Screens,
    settings: InstructSettings | None = None,
    *,
    answerer: Writer | None = None,
    report: Report = lambda _: None,
) -> Made:
    """Returns new prompts with answers.

    Args:
        seeds: prompts to begin with; a series shows one kind of them.
        writer: goes on with series of prompts.
        screens: what new prompts must pass.
        settings: how they are written.
        answerer: answers them; by default the writer.
        report: told the counts after each round.
    """
    settings = settings or InstructSettings()
    if not seeds:
        raise DataError("there are no seed prompts to begin from; give a file with at least one")
    if screens.perplexity is not None and screens.reader is None:
        raise ConfigError("a limit of perplexity needs a model that reads; name one")
    screens.likeness.add([root.prompt for root in seeds])
    several = any("\n" in root.prompt for root in seeds)
    made = Made()
    for number_ in range(settings.rounds):
        rng = np.random.default_rng([settings.seed, number_])
        kinds = sorted({root.kind for root in seeds})
        drawn = [kinds[place] for place in rng.integers(len(kinds), size=settings.asked)]
        asked = [series(_shown(seeds, made.rows, kind, settings.shown, rng)) for kind in drawn]
        seed = (settings.seed * 1000 + number_) * 100_000
        written = writer.write(asked, temperature=settings.temperature, seed=seed)
        tasks = [(task, k) for text, k in zip(written, drawn, strict=True) for task in tasks_in(text, lines=several)]
        fresh = list(_new(tasks, screens, settings, made.refused))
        rows = _answered(fresh, answerer or writer, screens, settings, seed, made.refused)
        for row in rows:
            made.rows.append({**row, "round": number_ + 1, "by": writer.model.name})
        made.refused = +made.refused  # without reasons that were never given
        report({"round": number_ + 1, "prompts": len(made.rows), "refused": dict(made.refused)})
    return made


def series(prompts: Sequence[str]) -> str:
    """Returns prompts as a series of tasks that goes on with the next one."""
    told = [f"Task {place}: {prompt}" for place, prompt in enumerate(prompts, start=1)]
    return "\n".join(["Come up with a series of tasks:", *told, f"Task {len(prompts) + 1}:"])


def tasks_in(written: Text, *, lines: bool = False) -> list[str]:
    """Returns the tasks that go on with a series.

    Args:
        written: the text that goes on.
        lines: whether a task may have several lines; otherwise what follows its first one is left out, and the last
            task counts if its line, or the text, came to an end.
    """
    parts = _MARK.split(written.text)
    whole_ = parts if written.ended or ("\n" in parts[-1].lstrip() and not lines) else parts[:-1]
    return [part.strip() if lines else part.strip().split("\n")[0].strip() for part in whole_]


def _shown(
    seeds: Sequence[Root], made: Sequence[dict[str, Any]], kind: str, count: int, rng: np.random.Generator
) -> list[str]:
    own = [row["prompt"] for row in made if row["kind"] == kind]
    theirs = [root.prompt for root in seeds if root.kind == kind]
    mine = [own[place] for place in rng.permutation(len(own))[: count // OWN_SHOWN]]
    given = [theirs[place] for place in rng.permutation(len(theirs))[: count - len(mine)]]
    both = [*given, *mine]
    return [both[place] for place in rng.permutation(len(both))]


def _new(
    tasks: Sequence[tuple[str, str]], screens: Screens, settings: InstructSettings, refused: Counter[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the prompts that are new, and what is known of them; they are in the pool from then on."""
    for prompt, kind in tasks:
        nearest = screens.likeness.nearest(prompt) if prompt else 0.0
        solved = screens.solve(prompt) if screens.solve is not None else None
        if not prompt:
            why = "empty"
        elif len(prompt) > settings.longest:
            why = "too long"
        elif screens.solve is not None and solved is None:
            why = "no rule answers it"
        elif screens.leaks is not None and screens.leaks.nearest(prompt) >= settings.most_alike:
            why = "like a prompt that is held out"
        elif nearest >= settings.most_alike:
            why = "like a prompt that is there"
        else:
            screens.likeness.add([prompt])
            known: dict[str, Any] = {"kind": kind, "likeness": round(nearest, 4)}
            if solved is not None:
                known |= {"answer": solved[0], "kind": solved[1], "answered_by": "rule"}
            yield prompt, known
            continue
        refused[why] += 1


def _answered(
    fresh: Sequence[tuple[str, dict[str, Any]]],
    answerer: Writer,
    screens: Screens,
    settings: InstructSettings,
    seed: int,
    refused: Counter[str],
) -> list[dict[str, Any]]:
    """Returns rows of the prompts that pass perplexity, that have an answer, and that the judge lets pass."""
    rows = [{"prompt": prompt, "split": "train", **known} for prompt, known in fresh]
    if screens.perplexity is not None and screens.reader is not None and rows:
        low, high = screens.perplexity
        for row, value in zip(rows, screens.reader.perplexities([row["prompt"] for row in rows]), strict=True):
            row["perplexity"] = round(value, 4)
        refused["perplexity"] += sum(not low <= row["perplexity"] <= high for row in rows)
        rows = [row for row in rows if low <= row["perplexity"] <= high]
    asked = [row for row in rows if "answer" not in row]
    texts = answerer.write(
        [row["prompt"] for row in asked for _ in range(settings.answers)],
        temperature=0.0 if settings.answers == 1 else settings.temperature,
        seed=seed + 50_000,
    )
    for place, row in enumerate(asked):
        said = texts[place * settings.answers : (place + 1) * settings.answers]
        given = [screens.rule.given(text.text) if text.ended or screens.rule.cut_counts else None for text in said]
        row |= _agreed(given, answerer.model.name)
    refused["answers disagree"] += sum(row.get("agreement", 1.0) < settings.agreement for row in rows)
    rows = [row for row in rows if row.get("agreement", 1.0) >= settings.agreement]
    if screens.judge is not None and rows:
        scores, _ = screens.judge.judge([Case(row["prompt"], row["answer"]) for row in rows])
        judged = [-1.0 if score is None else score for score in scores]
        refused["judge"] += sum(score < screens.least_judged for score in judged)
        rows = [{**row, "judged": s} for row, s in zip(rows, judged, strict=True) if s >= screens.least_judged]
    return rows


def _agreed(given: Sequence[str | None], name: str) -> dict[str, Any]:
    """Returns the answer that most texts give, and their share; no answer has a share of 0."""
    place = majority(given)
    if place is None or not given[place]:
        return {"answer": "", "agreement": 0.0}
    answer = str(given[place])
    same = sum(one is not None and agrees(one, answer) for one in given)
    return {"answer": answer, "agreement": round(same / len(given), 4), "answered_by": name}
