"""What the family reaches without anything learned: each model's own answers, votes, and re-ranking.

Letters: B prompts, M teachers, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from treegym.models.family.answering import greedy_answers, token_logprobs
from treegym.models.family.bundled import BUNDLED_TEACHERS, bundled_path
from treegym.models.tasks import MAX_ANSWER_TOKENS, Problem, final_answer, is_correct
from treegym.models.tokens.char_tokenizer import CharTokenizer

__all__ = ["Family", "baseline_answers", "load_family", "right"]


@dataclass(frozen=True)
class Family:
    """The primary and the teachers, loaded."""

    tokenizer: CharTokenizer
    primary: PreTrainedModel
    teachers: Mapping[str, PreTrainedModel]


def load_family() -> Family:
    """Returns the bundled primary and teachers as plain float32 transformers models."""
    return Family(
        tokenizer=CharTokenizer.load(bundled_path("tiny-primary") / "tokenizer.json"),
        primary=_load("tiny-primary"),
        teachers={name: _load(name) for name in BUNDLED_TEACHERS},
    )


def baseline_answers(family: Family, prompts: Sequence[str]) -> dict[str, list[str]]:
    """Returns the answers of the primary, of each teacher and of every way to combine them without learning.

    The ways: the step-wise votes add up the teachers' log-probabilities (or probabilities) of the next token and take
    the best; the majority counts final results; the sequence-level vote takes the teacher's answer whose
    log-probability, summed over its tokens and averaged over the teachers, is highest; re-ranking takes the one that
    the primary finds likeliest.
    """
    own = {
        "tiny-primary": greedy_answers(family.primary, family.tokenizer, prompts),
        **{name: greedy_answers(model, family.tokenizer, prompts) for name, model in family.teachers.items()},
    }
    candidates = [
        list(dict.fromkeys(answers)) for answers in zip(*(own[name] for name in family.teachers), strict=True)
    ]
    flat_prompts = [prompt for prompt, answers in zip(prompts, candidates, strict=True) for _ in answers]
    flat_answers = [answer for answers in candidates for answer in answers]
    votes = np.mean([_sums(family, model, flat_prompts, flat_answers) for model in family.teachers.values()], axis=0)
    likelihood = _sums(family, family.primary, flat_prompts, flat_answers)
    ends = np.cumsum([len(answers) for answers in candidates])[:-1]
    by_vote = [row[int(np.argmax(s))] for row, s in zip(candidates, np.split(votes, ends), strict=True)]
    by_primary = [row[int(np.argmax(s))] for row, s in zip(candidates, np.split(likelihood, ends), strict=True)]
    majority = [_majority([own[name][i] for name in family.teachers], fallback=by_vote[i]) for i in range(len(prompts))]
    return {
        **own,
        "step-wise vote (log-probabilities)": _stepwise(family, prompts, of_probabilities=False),
        "step-wise vote (probabilities)": _stepwise(family, prompts, of_probabilities=True),
        "majority of final results": majority,
        "sequence-level vote": by_vote,
        "re-ranking by the primary": by_primary,
    }


def right(answers: Sequence[str], problems: Sequence[Problem]) -> np.ndarray:
    """Returns which answers are correct: ``[B] bool``."""
    return np.array([is_correct(a, problem.answer) for a, problem in zip(answers, problems, strict=True)], bool)


def _load(name: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        bundled_path(name), dtype=torch.float32, local_files_only=True, use_safetensors=True
    ).eval()


def _sums(family: Family, model: PreTrainedModel, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    return np.array([row.sum() for row in token_logprobs(model, family.tokenizer, prompts, answers)])


def _majority(answers: Sequence[str], *, fallback: str) -> str:
    """Returns an answer with the commonest final result; the fallback when several are equally common."""
    counts = Counter(final_answer(answer) for answer in answers).most_common()
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        return fallback
    return next(answer for answer in answers if final_answer(answer) == counts[0][0])


@torch.no_grad()
def _stepwise(family: Family, prompts: Sequence[str], *, of_probabilities: bool) -> list[str]:
    """Decodes greedily from the teachers' summed scores, prompts of one length at a time."""
    eos = family.tokenizer.eos_id
    answers: dict[int, str] = {}
    for length in sorted({len(prompt) for prompt in prompts}):
        group = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([family.tokenizer.encode(prompts[i]) for i in group])  # [B, T]
        for _ in range(MAX_ANSWER_TOKENS):
            logprobs = [
                m(input_ids=ids, use_cache=False).logits[:, -1].log_softmax(-1) for m in family.teachers.values()
            ]
            scores = torch.stack(logprobs)  # [M, B, V]
            token = (scores.exp() if of_probabilities else scores).sum(0).argmax(-1, keepdim=True)  # [B, 1]
            ids = torch.cat([ids, token], dim=1)
            if bool((ids[:, length:] == eos).any(dim=1).all()):
                break
        for i, row in zip(group, ids[:, length:].tolist(), strict=True):
            answers[i] = family.tokenizer.decode(row[: row.index(eos)] if eos in row else row)
    return [answers[i] for i in range(len(prompts))]
