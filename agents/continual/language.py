"""Tasks for language models: prompts with answers, learned by likelihood, judged by greedy continuation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["LanguageProblem", "greedy_accuracy"]

Example = tuple[Sequence[int], Sequence[int]]  # prompt tokens, answer tokens with the end
IGNORED = -100


class LanguageProblem:
    """Next-token likelihood of answers; batches are lists of (prompt tokens, answer tokens)."""

    def loss(self, model: nn.Module, batch: Sequence[Example]) -> torch.Tensor:
        ids, targets = _padded(batch)
        logits = model(input_ids=ids, use_cache=False).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)

    def sampled_log_probs(
        self, model: nn.Module, batch: Sequence[Example], generator: torch.Generator
    ) -> list[torch.Tensor]:
        """Returns, for each example, the log-probability of tokens drawn from the model along the answer.

        The context is the example's own (teacher forcing); the token at every place of the answer is the model's.
        """
        found = []
        for example in batch:
            ids, targets = _padded([example])
            log_probs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, :-1].float(), -1)
            places = targets[0, 1:] != IGNORED
            drawn = torch.multinomial(log_probs[places].exp().detach(), 1, generator=generator)
            found.append(log_probs[places].gather(1, drawn).sum())
        return found


def _padded(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns token ids ``[B, T]`` and targets ``[B, T]`` that ignore prompts and padding."""
    length = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.zeros((len(batch), length), dtype=torch.long)
    targets = torch.full((len(batch), length), IGNORED, dtype=torch.long)
    for row, (prompt, answer) in enumerate(batch):
        whole = torch.tensor([*prompt, *answer])
        ids[row, : len(whole)] = whole
        targets[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return ids, targets


@torch.no_grad()
def greedy_accuracy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    is_right: Callable[[int, list[int]], bool],
    *,
    eos_id: int,
    max_new_tokens: int = 24,
) -> float:
    """Returns the share of prompts whose greedy continuation is right (``is_right(index, tokens)``)."""
    right = 0
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for length, indices in by_length.items():
        ids = torch.tensor([list(prompts[index]) for index in indices])
        going = torch.ones(len(indices), dtype=torch.bool)
        for _ in range(max_new_tokens):
            token = model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
            token = torch.where(going, token, eos_id)
            ids = torch.cat([ids, token[:, None]], 1)
            going &= token != eos_id
            if not going.any():
                break
        for row, index in enumerate(indices):
            tokens = ids[row, length:].tolist()
            if eos_id in tokens:
                right += is_right(index, tokens[: tokens.index(eos_id)])
    return right / max(len(prompts), 1)
