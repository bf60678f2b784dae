"""Plain greedy answers and scores of a transformers model, batched by prompt length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from treegym.models.tasks import MAX_ANSWER_TOKENS
from treegym.models.tokens.char_tokenizer import CharTokenizer

__all__ = ["greedy_answers", "token_logprobs", "yes_logits"]


@torch.no_grad()
def greedy_answers(
    model: PreTrainedModel, tokenizer: CharTokenizer, prompts: Sequence[str], *, max_tokens: int = MAX_ANSWER_TOKENS
) -> list[str]:
    """Returns the greedy continuation of each prompt up to its end token, as text."""
    model.eval()
    answers = [""] * len(prompts)
    for indices in _by_length([len(prompt) for prompt in prompts]):
        ids = torch.tensor([tokenizer.encode(prompts[i]) for i in indices])  # [B, T]
        tokens: list[torch.Tensor] = []
        cache = None
        ended = torch.zeros(len(indices), dtype=torch.bool)
        while len(tokens) < max_tokens and not bool(ended.all()):
            output = model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            ids = output.logits[:, -1].argmax(-1, keepdim=True)  # [B, 1]
            ended |= ids[:, 0] == tokenizer.eos_id
            tokens.append(ids[:, 0])
        for i, row in zip(indices, torch.stack(tokens, dim=1).tolist(), strict=True):
            end = row.index(tokenizer.eos_id) if tokenizer.eos_id in row else len(row)
            answers[i] = tokenizer.decode(row[:end])
    return answers


@torch.no_grad()
def token_logprobs(
    model: PreTrainedModel, tokenizer: CharTokenizer, prompts: Sequence[str], answers: Sequence[str]
) -> list[np.ndarray]:
    """Returns the log-probability of every answer token, the end token last: a ``[T] float32`` for each pair."""
    model.eval()
    scores: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
    for indices in _by_length([len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]):
        rows = [[*tokenizer.encode(prompts[i] + answers[i]), tokenizer.eos_id] for i in indices]
        ids = torch.tensor(rows)  # [B, T]
        logprobs = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[:, :-1]  # [B, T - 1, V]
        taken = logprobs.gather(-1, ids[:, 1:, None])[..., 0].numpy()  # [B, T - 1]
        for i, row in zip(indices, taken, strict=True):
            scores[i] = row[len(prompts[i]) - 1 :]
    return scores


@torch.no_grad()
def yes_logits(model: PreTrainedModel, tokenizer: CharTokenizer, texts: Sequence[str]) -> np.ndarray:
    """Returns the log-odds of ``y`` over ``n`` after each text and a question mark: ``[B] float32``."""
    model.eval()
    yes, no = tokenizer.encode("yn")
    odds = np.zeros(len(texts), np.float32)  # [B]
    for indices in _by_length([len(text) for text in texts]):
        ids = torch.tensor([tokenizer.encode(texts[i] + "?") for i in indices])
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]  # [B, V]
        odds[indices] = (logits[:, yes] - logits[:, no]).numpy()
    return odds


def _by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Groups indices by length: no padding, so no mask and no position to get wrong."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        groups[length].append(index)
    return list(groups.values())
