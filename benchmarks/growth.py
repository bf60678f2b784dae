"""How fast trees are scored and grown, against the plain ways to do the same, on the bundled models, one thread.

- scoring: all nodes of bundled trees, by one tree-attention pass a tree against every node's path on its own, in
  padded batches as large; a cell also shows the plain way's best case, whole leaf-to-root paths only.
- growing: `grow_shard` against a loop over prompts with `model.generate` and one forward call per node and model. Both
  run the same rules, and the trees are compared.
- cost growth: CPU seconds per node of `treegym grow` at 2,000 prompts over 100.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import cpu_seconds, emit, interleaved, median_ratio, parse, table

from treegym.envs.token_tree.grow.basis import fit_basis
from treegym.envs.token_tree.grow.columns import branches_of
from treegym.envs.token_tree.grow.growing import GrowSettings, grow, grow_shard
from treegym.envs.token_tree.grow.states import ContextStates
from treegym.envs.token_tree.grow.voices import make_voices
from treegym.models import tasks
from treegym.models.base import TokenIds
from treegym.models.family.bundled import BUNDLED_TEACHERS
from treegym.models.loading import load_model
from treegym.models.local.decoding import top_k
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tree_scores import Branches, score_trees, score_trees_naively
from treegym.tree.token_tree import Root, TokenTree


class PlainLoop:
    """A model used the plain way: one `model.generate` or one forward call a context, nothing batched or shared."""

    def __init__(self, model: TransformersModel) -> None:
        self.inner, self.name, self.tokenizer = model, model.name, model.tokenizer

    @torch.inference_mode()
    def _forward(self, context: TokenIds) -> Any:
        ids = torch.tensor([list(context)])
        return self.inner.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, use_cache=False
        )

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        rows = [torch.log_softmax(self._forward(c).logits[0, -1].float(), dim=-1).numpy() for c in contexts]
        return np.stack(rows)

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        return top_k(self.next_logprobs(contexts), k)

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        return [self.inner.score([c], [t])[0] for c, t in zip(contexts, continuations, strict=True)]

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        return np.stack([self._forward(c).hidden_states[-1][0, -1].float().numpy() for c in contexts])

    @torch.inference_mode()
    def generate(self, contexts: Sequence[TokenIds], *, max_new_tokens: int, **_: Any) -> list[list[int]]:
        made = []
        for context in contexts:
            ids = torch.tensor([list(context)])
            out = self.inner.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_id,
                pad_token_id=self.tokenizer.pad_id,
            )
            made.append(out[0, len(context) :].tolist())
        return made

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


def verify(root: Root, text: str) -> float:
    return float(tasks.is_correct(text, root.answer))


def roots(count: int, seed: int = 0) -> list[Root]:
    return [Root(p.prompt, p.answer, kind=p.kind) for p in tasks.problems("forge", count, seed=seed)]


def leaf_paths(trees: Sequence[Branches]) -> tuple[list[list[int]], list[list[int]]]:
    contexts, continuations = [], []
    for tree in trees:
        for leaf in sorted(set(range(tree.size)) - set(tree.parents.tolist())):
            contexts.append(list(tree.prompt))
            continuations.append(tree.path(leaf))
    return contexts, continuations


def score_cells(
    models: Sequence[TransformersModel], tree: TokenTree, prompts: int, rounds: int
) -> list[dict[str, Any]]:
    """Measures scoring for every model; the same tokens per batch for both ways."""
    cells = []
    for model in models:
        [voice] = make_voices(model, [])
        chosen = branches_of(tree, voice, range(prompts))
        contexts, continuations = leaf_paths(chosen)
        model.share_beginnings = False
        fast = score_trees(model, chosen, best=0)
        plain = score_trees_naively(model, chosen, best=0)
        difference = max(float(np.abs(a.logp - b.logp).max()) for a, b in zip(fast, plain, strict=True))
        times = interleaved(
            {
                "tree": lambda m=model, c=chosen: score_trees(m, c, best=0),
                "nodes": lambda m=model, c=chosen: score_trees_naively(m, c, best=0),
                "leaves": lambda m=model, c=contexts, t=continuations: m.score(c, t),
            },
            rounds=rounds,
            clock=cpu_seconds,
        )
        model.share_beginnings = True
        cells.append(
            {
                "scoring": model.name,
                "nodes": sum(t.size for t in chosen),
                "tree_seconds": statistics.median(times["tree"]),
                "over_node_paths": median_ratio(times["nodes"], times["tree"]),
                "over_leaf_paths": median_ratio(times["leaves"], times["tree"]),
                "largest_difference": difference,
            }
        )
    return cells


def grow_cell(
    models: Sequence[TransformersModel], plain_prompts: int, ours_prompts: int, rounds: int
) -> dict[str, Any]:
    """Measures growing, a prompt's seconds of the plain loop over ours."""
    settings = GrowSettings()
    ours = make_voices(models[0], models[1:])
    loops = make_voices(PlainLoop(models[0]), [PlainLoop(model) for model in models[1:]])
    prompts = roots(ours_prompts)
    basis = fit_basis(ContextStates(ours[0]), [root.prompt for root in prompts], max_tokens=settings.max_tokens)
    results: dict[str, TokenTree] = {}

    def run(name: str, voices: Any, count: int) -> None:
        results[name] = grow_shard(prompts[:count], voices, settings, basis=basis, verify=verify)

    times = interleaved(
        {
            "plain": lambda: run("plain", loops, plain_prompts),
            "ours": lambda: run("ours", ours, ours_prompts),
        },
        rounds=rounds,
        clock=cpu_seconds,
    )
    a_prompt = {"plain": 1.0 / plain_prompts, "ours": 1.0 / ours_prompts}
    first = grow_shard(prompts[:plain_prompts], ours, settings, basis=basis, verify=verify)
    same = float((first.size == results["plain"].size) and (first.token == results["plain"].token).mean())
    return {
        "growing": "all models",
        "plain_seconds_a_prompt": statistics.median(times["plain"]) * a_prompt["plain"],
        "our_seconds_a_prompt": statistics.median(times["ours"]) * a_prompt["ours"],
        "speedup": median_ratio(times["plain"], times["ours"]) * ours_prompts / plain_prompts,
        "same_tokens": same,
    }


def growth_cells(models: Sequence[TransformersModel], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Measures CPU seconds per node and peak memory of whole growths, the small one before and after the large."""
    cells = []
    for count in (*counts, counts[0]):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            tree = grow(
                roots(count, seed=1), primary=models[0], teachers=models[1:], out=Path(folder) / "t.tree", verify=verify
            )
            seconds = time.process_time() - start
            cells.append(
                {
                    "prompts": count,
                    "nodes": tree.size,
                    "microseconds_a_node": seconds / tree.size * 1e6,
                    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            )
    return cells


def main() -> None:
    args = parse(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    models = [load_model(name, device="cpu") for name in ("tiny-primary", *BUNDLED_TEACHERS)]
    tree = TokenTree.open(Path(__file__).resolve().parent.parent / "tree" / "data" / "bundled.tree")
    cost = growth_cells(models[:2], (16, 64) if args.quick else (100, 2000))  # first: nothing has raised the peak yet
    print(table(cost), "\n")
    scoring = score_cells(models, tree, 16 if args.quick else 64, 1 if args.quick else 3)
    print(table(scoring), "\n")
    growing = grow_cell(models, 1 if args.quick else 4, 16 if args.quick else 32, 1 if args.quick else 3)
    print(table([growing]), "\n")
    small = statistics.mean([cost[0]["microseconds_a_node"], cost[2]["microseconds_a_node"]])
    figures = {
        "scoring_speedup": statistics.median([cell["over_node_paths"] for cell in scoring]),
        "growing_speedup": growing["speedup"],
        "cost_growth_100_2000": cost[1]["microseconds_a_node"] / small,
    }
    emit("growth", figures, [*cost, *scoring, growing])


if __name__ == "__main__":
    main()
