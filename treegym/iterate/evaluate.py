"""How good a language model is at prompts, on its own: answers without a tree, judged by the verifier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from treegym.envs.token_tree.prompts import PromptSet, load_prompts
from treegym.errors import DataError
from treegym.models.base import Generates, Scores, needed
from treegym.models.tokens.ends import ending_at
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.rewards.answers import AnswerRule, majority
from treegym.tree.token_tree import Root

if TYPE_CHECKING:
    from treegym.iterate.settings import IterateSettings

__all__ = [
    "Answered",
    "answer_prompts",
    "evaluate_model",
    "load_answered",
    "prompts_of_round",
    "summary",
    "wilson_interval",
]


@dataclass(frozen=True)
class Answered:
    """What a model wrote after one prompt."""

    root: Root
    texts: tuple[str, ...]  # one per sample
    ended: tuple[bool, ...]  # came to an end, rather than to the limit of tokens
    right: tuple[bool, ...]
    lengths: tuple[int, ...]  # tokens
    ids: tuple[tuple[int, ...], ...] = ()  # the tokens themselves; none where a choice was scored


def load_answered(source: str, *, seed: int, rule: AnswerRule | None = None) -> PromptSet:
    """Returns the prompts a source names; raises DataError for the first one without an answer."""
    prompts = load_prompts(source, seed=seed, rule=rule)
    for number, root in enumerate(prompts.roots, start=1):
        if not root.answer.strip():
            raise DataError(
                f"{source}: prompt {number} ({root.prompt!r}) has no answer to compare with; "
                "give every prompt one, or leave it out"
            )
    return prompts


def prompts_of_round(settings: IterateSettings, seed: int) -> PromptSet:
    """Returns what a round of `treegym iterate` practises on: its prompts, or as many as it says, drawn at random."""
    prompts = load_answered(settings.prompts, seed=seed, rule=settings.rule)
    if settings.prompts_each is None or settings.prompts_each >= len(prompts.roots):
        return prompts
    places = np.sort(np.random.default_rng(seed).permutation(len(prompts.roots))[: settings.prompts_each])
    return replace(prompts, roots=[prompts.roots[place] for place in places])


def answer_prompts(
    model: Generates,
    prompts: PromptSet,
    *,
    max_tokens: int,
    form: PromptFormat | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Answered]:
    """Returns a model's answers to prompts; where a prompt has choices, the one that it finds likeliest.

    Args:
        model: the model.
        prompts: the prompts with their verifier.
        max_tokens: longest answer.
        form: how prompts are put; by default as the model is made for.
        samples: answers per prompt.
        temperature: of the samples; 0 is greedy.
        seed: of the samples.
    """
    form = form or PromptFormat()
    begin, ending = form.begin(model), ending_at(model, form.stops)
    contexts = [list(root.tokens) or list(begin(root.prompt)) for root in prompts.roots]
    written = [place for place, root in enumerate(prompts.roots) if "choices" not in root.extra]
    chosen = _chosen(model, prompts.roots, contexts, form)
    asked = [contexts[place] for place in written for _ in range(samples)]
    made = ending.generate(asked, max_new_tokens=max_tokens, temperature=temperature, seed=seed) if asked else []
    answers = dict(chosen)
    for number, place in enumerate(written):
        ids = made[number * samples : (number + 1) * samples]
        answers[place] = _judged(model, prompts, prompts.roots[place], ids)
    return [answers[place] for place in range(len(prompts.roots))]


def _judged(model: Generates, prompts: PromptSet, root: Root, made: Sequence[Sequence[int]]) -> Answered:
    eos = model.tokenizer.eos_id
    ended = tuple(bool(ids) and ids[-1] == eos for ids in made)
    texts = tuple(model.tokenizer.decode([token for token in ids if token != eos]) for ids in made)
    counts = [done or prompts.rule.cut_counts for done in ended]
    right = tuple(ok and prompts.verify(root, text) >= 0.5 for ok, text in zip(counts, texts, strict=True))
    return Answered(root, texts, ended, right, tuple(len(ids) for ids in made), tuple(tuple(ids) for ids in made))


def _chosen(
    model: Generates, roots: Sequence[Root], contexts: Sequence[list[int]], form: PromptFormat
) -> dict[int, Answered]:
    """Returns the likeliest choice, by the sum over its tokens, of every prompt that has choices."""
    gap = "" if form.form_for(model) == "chat" else form.between
    pairs = [
        (place, model.tokenizer.encode(gap + choice))
        for place, root in enumerate(roots)
        for choice in root.extra.get("choices", ())
    ]
    asked = [contexts[place] for place, _ in pairs], [ids for _, ids in pairs]
    scores = needed(model, Scores).score(*asked) if pairs else []
    totals: dict[int, list[float]] = defaultdict(list)
    for (place, _), values in zip(pairs, scores, strict=True):
        totals[place].append(float(values.sum()))
    found = {}
    for place, total in totals.items():
        choice = roots[place].extra["choices"][int(np.argmax(total))]
        found[place] = Answered(roots[place], (choice,), (True,), (choice == roots[place].answer,), (0,))
    return found


def evaluate_model(
    model: Generates, prompts: PromptSet, *, max_tokens: int = 24, form: PromptFormat | None = None
) -> dict[str, Any]:
    """Returns accuracy with its 95 % interval, accuracy by kind, and the mean length of greedy answers."""
    return summary(answer_prompts(model, prompts, max_tokens=max_tokens, form=form), prompts.rule)


def summary(answered: Sequence[Answered], rule: AnswerRule) -> dict[str, Any]:
    """Returns the figures of answers: of the first sample of each prompt, and of all where there are several."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for one in answered:
        by_kind[one.root.kind or "all"].append(one.right[0])
    right = [correct for kind in by_kind.values() for correct in kind]
    low, high = wilson_interval(sum(right), len(right))
    figures: dict[str, Any] = {
        "prompts": len(right),
        "accuracy": sum(right) / len(right),
        "low": low,
        "high": high,
        "by_kind": {kind: float(np.mean(found)) for kind, found in sorted(by_kind.items())},
        "mean_tokens": float(np.mean([length for one in answered for length in one.lengths])),
        "cut": float(np.mean([not done for one in answered for done in one.ended])),
    }
    samples = max(len(one.right) for one in answered)
    if samples > 1:
        figures["pass_at"] = {k: _pass_at(answered, k) for k in _powers(samples)}
        figures["majority_at"] = {k: _majority_at(answered, rule, k) for k in _powers(samples)}
    return figures


def _powers(most: int) -> list[int]:
    powers = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return powers if powers[-1] == most else [*powers, most]


def _pass_at(answered: Sequence[Answered], k: int) -> float:
    """Returns the share of prompts that k samples solve: 1 - C(n - c, k) / C(n, k), without bias
    (Chen et al. 2021, https://arxiv.org/abs/2107.03374)."""
    values = []
    for one in answered:
        n, c = len(one.right), sum(one.right)
        k_here = min(k, n)
        values.append(1.0 - float(np.prod([(n - c - i) / (n - i) for i in range(k_here)])))
    return float(np.mean(values))


def _majority_at(answered: Sequence[Answered], rule: AnswerRule, k: int) -> float:
    """Returns the share of prompts where the answer that most of the first k samples give is right."""
    right = []
    for one in answered:
        own = one.root.extra.get("extract")
        given = [(AnswerRule(own) if own else rule).given(text) for text in one.texts[:k]]
        place = majority(given)
        right.append(place is not None and one.right[place])
    return float(np.mean(right))


def wilson_interval(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share: sensible at 0 and at 1, too."""
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * float(np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)))
    return max(0.0, centre - half), min(1.0, centre + half)
