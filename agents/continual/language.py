"""Tasks for language models: prompts with answers, learned by likelihood, judged by greedy continuation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from treegym.agents.fast.vocabulary import draw, token_log_probs
from treegym.agents.policies.lm_parts import Free, head_of, layers_below
from treegym.agents.policies.lm_tree import Shape, tree_states
from treegym.agents.policies.lm_walk import Layers
from treegym.models.local.decoding_batch import SHARING_PAYS, shared_tokens

__all__ = ["LanguageProblem", "greedy_accuracy"]

Example = tuple[Sequence[int], Sequence[int]]  # prompt tokens, answer tokens with the end
IGNORED = -100


class LanguageProblem:
    """Next-token likelihood of answers; batches are lists of (prompt tokens, answer tokens)."""

    def loss(self, model: nn.Module, batch: Sequence[Example]) -> torch.Tensor:
        if not hasattr(model, "get_output_embeddings"):  # several networks behind one face: their logits as they come
            ids, targets = _padded(batch)
            logits = model(input_ids=ids, use_cache=False).logits
            return nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED
            )
        states, targets = _read(model, batch)
        return -token_log_probs(states, head_of(model, _vocabulary(model)), targets, entropy=False)[0].mean()

    def answer_log_probs(self, model: nn.Module, batch: Sequence[Example], free: Free | None = None) -> torch.Tensor:
        """Returns the log-probability of each answer, summed over its tokens ``[E]``; on free text by all its ends."""
        states, targets = _read(model, batch)
        said, _ = token_log_probs(states, head_of(model, _vocabulary(model), free), targets, entropy=False)
        row = torch.repeat_interleave(torch.tensor([len(answer) for _, answer in batch]))
        return said.new_zeros(len(batch)).index_add(0, row, said)

    def sampled_log_probs(
        self, model: nn.Module, batch: Sequence[Example], generator: torch.Generator
    ) -> list[torch.Tensor]:
        """Returns, for each example, the log-probability of tokens drawn from the model along the answer.

        The context is the example's own (teacher forcing); the token at every place of the answer is the model's.
        """
        found, head = [], head_of(model, _vocabulary(model))
        for example in batch:
            states, _ = _read(model, [example])
            uniform = torch.rand(len(states), generator=generator, dtype=torch.float64)
            drawn, _ = draw(states.detach(), head, uniform)
            found.append(token_log_probs(states, head, drawn, entropy=False)[0].sum())
        return found


def _vocabulary(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _read(model: nn.Module, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the states ``[N, D]`` before every token of the answers, and those tokens ``[N]``.

    Where examples begin alike, what they share is read once, if the layers take masks that are not causal.
    """
    ids, targets = _padded(batch)
    row, column = (targets[:, 1:] != IGNORED).nonzero(as_tuple=True)
    wanted = targets[row, column + 1]
    ranked = sorted([*prompt, *answer] for prompt, answer in batch)
    layers = Layers.of(layers_below(model), model.config.get_text_config())  # type: ignore[union-attr, operator]
    if layers.takes_trees and sum(map(len, ranked)) > SHARING_PAYS * shared_tokens(ranked):
        lengths = torch.tensor([len(prompt) + len(answer) for prompt, answer in batch])
        contexts = ids.masked_fill(torch.arange(ids.shape[1])[None] >= lengths[:, None], -1)
        shape = Shape(layers.config, layers.dtype)
        states = tree_states(contexts, row.numpy(), column.numpy(), layers=layers.trunk, shape=shape)
    else:
        states = layers.trunk(input_ids=ids, use_cache=False).last_hidden_state[row, column]
    return states, wanted


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
