"""A draft distilled from its target: some of the target's layers, taught to say what the target says.

The draft keeps the target's embeddings, head and norm, and layers of it spread from the first to the last (DistilBERT
begins so, too: Sanh et al. 2019, https://arxiv.org/abs/1910.01108). It is taught on texts that the target writes, by
the divergence KL(target || draft) at every token written. Speculative decoding accepts a proposal with probability
sum over tokens of min(p, q), which is one minus the total variation of the two laws, and by Pinsker's inequality
that is at least 1 - sqrt(KL / 2): what is learned bounds what is accepted.

Letters: B texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import log_softmax

from treegym.errors import ConfigError
from treegym.models.base import TokenIds
from treegym.models.local.speculative import SpeculativeModel
from treegym.models.local.transformers_model import TransformersModel

__all__ = ["DistilSettings", "distil", "divergence", "speculation", "thinned"]

Report = Callable[[int, float], None]  # step, loss
LAYERS = ("layers", "h")  # what the modules of layers are called: of Llama and its relatives, of GPT-2


@dataclass(frozen=True)
class DistilSettings:
    """How a draft is taught."""

    layers: int | None = None  # that the draft keeps; None: a third, at least one
    steps: int = 300
    batch: int = 16  # texts of a step
    max_tokens: int = 24  # of a text that the target writes
    temperature: float = 1.0  # at which it writes
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 was expected")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate is {self.learning_rate}; a number above 0 was expected")


def thinned(target: TransformersModel, layers: int | None = None) -> Any:
    """Returns a copy of a target's network with fewer layers, the first and the last among them where two fit."""
    network = copy.deepcopy(target.model)
    trunk = network.base_model
    name = next((name for name in LAYERS if isinstance(getattr(trunk, name, None), torch.nn.ModuleList)), None)
    if name is None:
        raise ConfigError(f"{target.name}: which modules its layers are is not known, so none can be left out")
    there = getattr(trunk, name)
    count = max(1, len(there) // 3) if layers is None else layers
    if not 1 <= count < len(there):
        raise ConfigError(
            f"a draft of {count} layers was asked for; {target.name} has {len(there)}, and a draft needs 1 to "
            f"{len(there) - 1}"
        )
    kept = np.unique(np.linspace(0, len(there) - 1, count).round().astype(int))
    setattr(trunk, name, torch.nn.ModuleList(there[i] for i in kept))
    for place, layer in enumerate(getattr(trunk, name)):  # where keys and values are kept goes by these numbers
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = place
    config = network.config.get_text_config()
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]
    return network


def distil(
    target: TransformersModel,
    prompts: Sequence[TokenIds],
    settings: DistilSettings | None = None,
    *,
    report: Report | None = None,
) -> TransformersModel:
    """Returns a draft for a target, taught on what the target writes after prompts (token ids)."""
    settings = settings or DistilSettings()
    if not prompts:
        raise ConfigError("no prompts came to distil on; give those that the target will be asked")
    network = thinned(target, settings.layers)
    weights = [parameter.requires_grad_(True) for parameter in network.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    rng = np.random.default_rng(settings.seed)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for step in range(settings.steps):
        chosen = [prompts[i] for i in rng.integers(len(prompts), size=settings.batch)]
        written = target.generate(
            chosen, max_new_tokens=settings.max_tokens, temperature=settings.temperature, seed=int(rng.integers(2**31))
        )
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _falling(step, settings.steps)
        loss = _divergence_on(target, network, chosen, written)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        if report is not None:
            report(step + 1, float(loss.detach()))
    return TransformersModel(network.eval().requires_grad_(False), target.tokenizer, name=f"{target.name}-draft")


def _falling(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _divergence_on(
    target: TransformersModel, network: Any, contexts: Sequence[TokenIds], written: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Returns the mean divergence at the tokens that were written."""
    rows = [[*context, *text][:-1] for context, text in zip(contexts, written, strict=True)]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=target.device)
    where = [
        (row, place)
        for row, (context, text) in enumerate(zip(contexts, written, strict=True))
        for place in range(len(context) - 1, len(context) + len(text) - 1)
    ]
    at, places = torch.tensor(where, device=target.device).unbind(1)
    size = target.tokenizer.vocab_size
    with torch.no_grad():
        theirs = log_softmax(target.model(input_ids=ids, use_cache=False).logits[at, places, :size].float(), -1)
    ours = log_softmax(network(input_ids=ids, use_cache=False).logits[at, places, :size].float(), -1)
    return divergence(theirs, ours)


def divergence(target: torch.Tensor, draft: torch.Tensor) -> torch.Tensor:
    """Returns the mean of KL(target || draft) over rows of log-probabilities ``[n, V]``."""
    return (target.exp() * (target - draft)).sum(-1).mean()


def speculation(
    draft: TransformersModel, target: TransformersModel, prompts: Sequence[TokenIds], **settings: Any
) -> dict[str, float]:
    """Returns how often a draft's proposals are accepted on prompts, and a text's tokens per pass of the target."""
    pair = SpeculativeModel(draft, target, rows=1)
    pair.generate(prompts, **settings)
    told = pair.report
    return {
        "acceptance": told.acceptance_rate,
        "tokens": told.tokens,
        "target_passes": told.target_passes,
        "tokens_per_pass": told.tokens / max(told.target_passes, 1),
    }
