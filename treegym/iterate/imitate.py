"""Supervised steps: the primary learns answers by likelihood. Used for what search found, and for reference data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from treegym.agents.continual.language import LanguageProblem
from treegym.agents.fast.masters import MasterAdamW
from treegym.envs.token_tree.prompts import PromptSet
from treegym.errors import DataError, LossIsNaN
from treegym.models.base import TextTokenizer
from treegym.models.tasks import FORMS, KINDS
from treegym.models.tokens.prompt_format import Begin

__all__ = ["Example", "LossIsNaN", "check_weights", "correct_paths", "imitate", "written_answers"]

Example = tuple[Sequence[int], Sequence[int]]  # prompt tokens, answer tokens with the end


def check_weights(model: Any, after: str) -> None:
    """Raises LossIsNaN if a weight of a model is no finite number."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise LossIsNaN(f"after {after}, {name} holds NaN or infinity; a lower learning rate may help")


def imitate(
    model: Any, examples: Sequence[Example], *, steps: int, batch: int, learning_rate: float, seed: int
) -> list[float]:
    """Takes supervised steps on a `transformers` model in place; returns the losses. The rate decays to a tenth.

    What is learned is what asks for gradients.
    """
    if not examples or steps < 1:
        return []
    rng = np.random.default_rng(seed)
    problem = LanguageProblem()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = MasterAdamW(learned, lr=learning_rate, weight_decay=0.0)
    losses = []
    order = rng.permutation(len(examples))
    at = 0
    for step in range(steps):
        if at + batch > len(order):
            order, at = rng.permutation(len(examples)), 0
        chosen = [examples[index] for index in order[at : at + batch]]
        at += batch
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1.0 - 0.9 * step / steps)
        loss = problem.loss(model, chosen)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise LossIsNaN(f"the loss of supervised step {step} is {value}; a lower learning rate may help")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        losses.append(value)
    return losses


def correct_paths(world: Any, roots: Sequence[int], *, seed: int, each: int = 1) -> list[Example]:
    """Returns up to `each` correct answers of each root, chosen among all that the tree knows, short ones likelier."""
    tree = world.tree
    rng = np.random.default_rng(seed)
    ends = np.flatnonzero(np.asarray(world.right))
    by_root: dict[int, list[int]] = {}
    for end, root in zip(ends, world.tables.root_index[ends], strict=True):
        by_root.setdefault(int(root), []).append(int(end))
    examples: list[Example] = []
    for root in roots:
        found = by_root.get(int(root), [])
        if found:
            share = np.exp(-0.3 * tree.depth[found].astype(float))
            for end in rng.choice(found, size=min(each, len(found)), replace=False, p=share / share.sum()):
                examples.append((tree.roots[int(root)].tokens, tree.path(int(end)).tolist()))
    return examples


def written_answers(
    prompts: PromptSet,
    tokenizer: TextTokenizer,
    *,
    count: int,
    max_tokens: int,
    seed: int,
    begin: Begin | None = None,
    between: str = "",
) -> list[Example]:
    """Returns the reference answers of up to `count` prompts in a tokenizer's own tokens, its end token last.

    Prompts of the bundled tasks are answered with worked steps, short or long, as their verifier wants them. An answer
    is left out where it would be no right one: not shorter than `max_tokens`, not expressible in the vocabulary, or
    refused by the verifier.

    Args:
        prompts: the prompts with their verifier.
        tokenizer: the primary's.
        count: how many at most.
        max_tokens: longest answer, with its end.
        seed: which of them.
        begin: how prompts are put; by default as they are.
        between: what an answer begins with.
    """
    put = begin or tokenizer.encode
    rng = np.random.default_rng(seed)
    examples: list[Example] = []
    for root in (prompts.roots[index] for index in rng.permutation(len(prompts.roots))[:count]):
        worked = [
            kind.worked(root.prompt, form=f) for kind in KINDS.values() if kind.matches(root.prompt) for f in FORMS
        ]
        for text in [*rng.permutation(worked).tolist(), root.answer]:
            try:
                answer = tokenizer.encode(between + text)
            except DataError:
                continue  # the vocabulary cannot express it, so there is nothing that this model could imitate
            if len(answer) < max_tokens and prompts.verify(root, tokenizer.decode(answer)) >= 0.5:
                examples.append((list(root.tokens) or list(put(root.prompt)), [*answer, tokenizer.eos_id]))
                break
    return examples
