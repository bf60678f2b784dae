"""Cells of backends.py that need no server: the tree cache, speculative decoding, options of transformers."""

from __future__ import annotations

import shutil
import statistics
from typing import Any

import numpy as np
import torch
from common import interleaved, median_ratio

from treegym.models.local.kv_cache import TreeCache
from treegym.models.local.speculative import SpeculativeModel
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.char_tokenizer import CharTokenizer

NEVER: list[int] = []  # no stop token: all contestants make equally many tokens


def made(layers: int, width: int, *, seed: int = 0, quiet_from: int | None = None) -> TransformersModel:
    """Returns a random Llama over the bundled characters; layers from `quiet_from` on add little to the stream."""
    import transformers

    tokenizer = CharTokenizer()
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        initializer_range=0.05,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers[quiet_from if quiet_from is not None else layers :]:
            layer.self_attn.o_proj.weight.mul_(0.05)
            layer.mlp.down_proj.weight.mul_(0.05)
    return TransformersModel(model, tokenizer, name=f"llama-{layers}x{width}")


def parameters(model: TransformersModel) -> int:
    return sum(p.numel() for p in model.model.parameters())


def truncated(target: TransformersModel, layers: int) -> TransformersModel:
    """Returns the first layers of a model, with its embedding and head, as a model of its own."""
    import copy

    import transformers

    config = copy.deepcopy(target.model.config)
    config.num_hidden_layers = layers
    config.layer_types = None
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(target.model.state_dict(), strict=False)
    return TransformersModel(model, target.tokenizer, name=f"{target.name}-first-{layers}")


# ---------------------------------------------------------------- the tree cache


def frontier(rng: np.random.Generator, *, prompt: int, leaves: int, depth: int) -> list[list[int]]:
    """Returns the contexts of a random tree's leaves: one prompt, paths that branch at random."""
    base = rng.integers(2, 24, size=prompt).tolist()
    paths = [rng.integers(2, 24, size=depth).tolist()]
    while len(paths) < leaves:
        parent, cut = paths[rng.integers(len(paths))], int(rng.integers(depth))
        paths.append([*parent[:cut], *rng.integers(2, 24, size=depth - cut).tolist()])
    return [[*base, *path] for path in paths]


@torch.inference_mode()
def by_tree_cache(model: TransformersModel, contexts: list[list[int]], tokens: int) -> list[list[int]]:
    cache = TreeCache(model)
    nodes = [cache.add_path(context) for context in contexts]
    said: list[list[int]] = [[] for _ in contexts]
    for step in range(tokens):
        chosen = cache.next_logprobs(nodes).argmax(axis=1).tolist()
        for row, token in enumerate(chosen):
            said[row].append(token)
        if step + 1 < tokens:
            nodes = [cache.add(node, token) for node, token in zip(nodes, chosen, strict=True)]
    return said


@torch.inference_mode()
def by_plain_generate(model: TransformersModel, contexts: list[list[int]], tokens: int) -> list[list[int]]:
    said = []
    for context in contexts:
        ids = torch.tensor([context])
        out = model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        said.append(out[0, len(context) :].tolist())
    return said


def tree_cache_cell(quick: bool) -> dict[str, Any]:
    model = made(8, 384)
    contexts = frontier(np.random.default_rng(0), prompt=48, leaves=8 if quick else 32, depth=8)
    tokens = 4 if quick else 12
    results: dict[str, list[list[int]]] = {}
    times = interleaved(
        {
            "cache": lambda: results.update(cache=by_tree_cache(model, contexts, tokens)),
            "generate": lambda: results.update(generate=by_plain_generate(model, contexts, tokens)),
            "batched": lambda: model.generate(contexts, max_new_tokens=tokens, stop_ids=NEVER),
        },
        rounds=1 if quick else 5,
    )
    same = np.mean([a == b for a, b in zip(results["cache"], results["generate"], strict=True)])
    return {
        "tree_cache": model.name,
        "parameters": parameters(model),
        "frontier": len(contexts),
        "generate_s": statistics.median(times["generate"]),
        "cache_s": statistics.median(times["cache"]),
        "speedup": median_ratio(times["generate"], times["cache"]),
        "our_generate_speedup": median_ratio(times["generate"], times["batched"]),
        "same_answers": float(same),
    }


# ---------------------------------------------------------------- speculative decoding


def speculative_cell(quick: bool) -> dict[str, Any]:
    target = made(12, 512, seed=1, quiet_from=2)
    draft = truncated(target, 2)
    pair = SpeculativeModel(draft, target)
    contexts = np.random.default_rng(1).integers(2, 24, size=(2 if quick else 4, 24)).tolist()
    tokens = 12 if quick else 48
    said: dict[str, Any] = {}

    def each(model: Any, name: str) -> None:
        said[name] = [model.generate([c], max_new_tokens=tokens, stop_ids=NEVER)[0] for c in contexts]

    times = interleaved(
        {"plain": lambda: each(target, "plain"), "speculative": lambda: each(pair, "speculative")},
        rounds=1 if quick else 5,
    )
    return {
        "speculative": f"{draft.name} for {target.name}",
        "parameters": parameters(target),
        "times_smaller": parameters(target) / parameters(draft),
        "acceptance": pair.report.acceptance_rate,
        "plain_s": statistics.median(times["plain"]),
        "speculative_s": statistics.median(times["speculative"]),
        "speedup": median_ratio(times["plain"], times["speculative"]),
        "same_answers": float(np.mean([a == b for a, b in zip(said["plain"], said["speculative"], strict=True)])),
    }


# ---------------------------------------------------------------- options of transformers


def options_cell(quick: bool) -> dict[str, Any]:
    """Measures bfloat16 and torch.compile on this machine, over plain float32."""
    plain = made(8, 384)
    half = made(8, 384)
    half = TransformersModel(half.model.to(torch.bfloat16), half.tokenizer, name="bfloat16")
    contestants = {"float32": plain, "bfloat16": half}
    if not quick and shutil.which("c++"):
        contestants["compiled"] = TransformersModel(made(8, 384).model, plain.tokenizer, compile_model=True)
    contexts = np.random.default_rng(3).integers(2, 24, size=(16, 64)).tolist()
    times = interleaved(
        {name: (lambda m=model: m.next_logprobs(contexts)) for name, model in contestants.items()},
        rounds=1 if quick else 7,
    )
    drift = float(np.abs(half.next_logprobs(contexts) - plain.next_logprobs(contexts)).max())
    speedups = {f"{name}_speedup": median_ratio(times["float32"], times[name]) for name in list(contestants)[1:]}
    return {"options": plain.name, "attention": plain.attention, **speedups, "bfloat16_largest_difference": drift}
