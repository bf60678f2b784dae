"""TRL: our prompts as a data set, our rewards as reward functions, walks of a tree as rollouts for `GRPOTrainer`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError, require
from treegym.integrations.scoring import TextReward, column, last_text
from treegym.tree.opening import load_tree
from treegym.tree.token_tree import TokenTree

__all__ = ["TreeRollouts", "async_reward", "prompt_dataset", "reward", "tokenizer", "tree_dataset", "tree_reward"]

Rewards = list[float | None]


def prompt_dataset(source: str = "bundled", *, split: str = "train", chat: bool = False, **options: Any) -> Any:
    """Returns a `datasets.Dataset` with the columns prompt, answer and kind.

    Args:
        source: as for ``--prompts``: bundled:train=100, a JSONL file, reasoning-gym:NAME, ...
        split: train, validation, test or all.
        chat: prompts as one message of the user, for models with a chat template.
        **options: of `load_prompts`.
    """
    return _dataset(load_prompts(source, **options).roots, split, chat, source)


def tree_dataset(tree: str | TokenTree | None = None, *, split: str = "train") -> Any:
    """Returns the prompts of a tree in the same form, for `TreeRollouts`."""
    return _dataset(load_tree(tree).roots, split, False, "the tree")


def _dataset(roots: Any, split: str, chat: bool, where: str) -> Any:
    datasets = require("datasets", extra="trl", purpose="a data set for TRL")
    chosen = [root for root in roots if split in ("all", root.split)]
    if not chosen:
        raise DataError(f"{where} has no prompts of split {split!r}")
    prompts: list[Any] = [[{"role": "user", "content": r.prompt}] if chat else r.prompt for r in chosen]
    return datasets.Dataset.from_dict(
        {"prompt": prompts, "answer": [r.answer for r in chosen], "kind": [r.kind for r in chosen]}
    )


def reward(
    spec: Any = None, *, answer: str = "answer", kind: str = "kind", name: str = "treegym"
) -> Callable[..., Rewards]:
    """Returns a reward function for TRL's trainers; what failed is None, which TRL leaves out of the sum.

    Args:
        spec: a reward spec; None is the verifier.
        answer: the data set's column of references.
        kind: its column of kinds of tasks, if it has one.
        name: what the trainer logs it as.
    """
    scorer = TextReward(spec)

    def score(prompts: list[Any], completions: list[Any], **columns: Any) -> Rewards:
        answers = column(columns, answer, needed=scorer.needs_answers, count=len(prompts))
        kinds = column(columns, kind, needed=False, count=len(prompts))
        tokens = columns.get("completion_ids")
        texts = [last_text(completion) for completion in completions]
        return scorer([last_text(prompt) for prompt in prompts], texts, answers, kinds, tokens=tokens)

    score.__name__ = name
    return score


def async_reward(spec: Any = None, **options: Any) -> Callable[..., Any]:
    """Returns the same as a coroutine: TRL awaits several at once, so that slow judges overlap."""
    score = reward(spec, **options)

    async def wait(prompts: list[Any], completions: list[Any], **columns: Any) -> Rewards:
        return await asyncio.to_thread(score, prompts, completions, **columns)

    wait.__name__ = score.__name__
    return wait


def tokenizer(model: str) -> Any:
    """Returns a model's tokenizer as transformers knows them; the bundled models' character vocabulary included."""
    transformers = require("transformers", extra="trl", purpose="a tokenizer for TRL")
    from treegym.models.tokens.tokenizers import load_tokenizer

    ours = load_tokenizer(model)
    if hasattr(ours, "hf"):
        return ours.hf
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = json.loads((Path(model) / "tokenizer.json").read_text(encoding="utf-8"))["tokens"]
    inner: Any = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[ours.pad_id])
    )
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    ends = {"pad_token": tokens[ours.pad_id], "eos_token": tokens[ours.eos_id]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **ends)


class TreeRollouts:
    """A `rollout_func`: the model walks a tree, choosing among the children it has there, by its own probabilities.

    Example: ``GRPOTrainer(..., rollout_func=TreeRollouts(), reward_funcs=tree_reward)``. The model's vocabulary must be
    the tree's. Log-probabilities are the model's over its whole vocabulary, as the trainer computes them again.
    """

    def __init__(self, tree: str | TokenTree | None = None, *, max_tokens: int = 64, seed: int = 0) -> None:
        self.tree = load_tree(tree)
        self.max_tokens = max_tokens
        self._rng = np.random.default_rng(seed)
        self._root_of = {root.prompt: i for i, root in enumerate(self.tree.roots)}

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """Returns one walk per prompt: prompt_ids, completion_ids, logprobs, and the verdict of the end reached."""
        roots = [self._find(last_text(prompt)) for prompt in prompts]
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        try:
            walks = self._walk(model, roots)
        finally:
            model.train(was_training)
        verdicts = [float(self.tree.verdict[node]) for node, _, _ in walks]
        return {
            "prompt_ids": [list(self.tree.roots[root].tokens) for root in roots],
            "completion_ids": [tokens for _, tokens, _ in walks],
            "logprobs": [logprobs for _, _, logprobs in walks],
            "verdict": verdicts,
        }

    def _find(self, prompt: str) -> int:
        root = self._root_of.get(prompt)
        if root is None or not self.tree.roots[root].tokens:
            raise ConfigError(
                f"the tree has no prompt {prompt[:80]!r} with tokens; take the data set from `tree_dataset`"
            )
        return root

    def _walk(self, model: Any, roots: list[int]) -> list[tuple[int, list[int], list[float]]]:
        """Walks all side by side; prompts are padded on the left and the keys and values of what was read are kept."""
        import torch

        tree, device = self.tree, next(model.parameters()).device
        starts = [list(tree.roots[root].tokens) for root in roots]
        longest = max(map(len, starts))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in starts], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in starts], device=device)
        at = [int(tree.root_node[root]) for root in roots]
        paths: list[tuple[list[int], list[float]]] = [([], []) for _ in roots]
        past = None
        for _ in range(self.max_tokens):
            open_lanes = [lane for lane, node in enumerate(at) if tree.child_count[node] > 0]
            if not open_lanes:
                break
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            with torch.no_grad():
                out = model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True
                )
            past = out.past_key_values
            logp = torch.log_softmax(out.logits[:, -1].float(), -1).cpu().numpy()
            step = np.zeros(len(roots), np.int64)
            for lane in open_lanes:
                children = tree.children(at[lane])
                tokens = tree.token[children]
                if logp.shape[1] <= tokens.max():
                    raise ConfigError(
                        "the model's vocabulary is not the tree's; train the tree's primary, or grow its own"
                    )
                mine = logp[lane, tokens]
                chances = np.exp(mine.astype(np.float64) - mine.max())
                place = int(self._rng.choice(len(children), p=chances / chances.sum()))
                at[lane] = int(children[place])
                step[lane] = tokens[place]
                paths[lane][0].append(int(tokens[place]))
                paths[lane][1].append(float(mine[place]))
            ids = torch.from_numpy(step)[:, None].to(device)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        return [(node, tokens, logprobs) for node, (tokens, logprobs) in zip(at, paths, strict=True)]


def tree_reward(prompts: list[Any], completions: list[Any], verdict: list[float], **columns: Any) -> Rewards:
    """The verdict of the ends that `TreeRollouts` reached; an end that nobody judged is None."""
    return [None if np.isnan(value) else float(value) for value in verdict]
