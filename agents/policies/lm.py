r"""`LMPolicy`: the primary model is the policy; its next-token log-probabilities, restricted to the children.

    pi(k | context) = softmax over the legal children of  logit(token_k | context)

The same restriction and renormalisation holds in sampling and in the loss. While walking, keys and values are kept
between steps (`lm_walk.py`); while learning, one forward pass over an episode's last context gives the logits of all
its steps, since each context is the beginning of the next.

Letters: B states, E episodes, N steps, L context length, K children, D hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from treegym.agents.fast.llama import Llama, fits
from treegym.agents.fast.llama_walk import LlamaWalk
from treegym.agents.fast.masters import MasterAdamW
from treegym.agents.fast.vocabulary import Head, Said, draw, likeliest, token_log_probs
from treegym.agents.masking import MASK, masked_entropy, masked_log_softmax
from treegym.agents.policies.base import ChildScorer, Judged, Observations
from treegym.agents.policies.lm_anchor import anchored
from treegym.agents.policies.lm_checks import (
    check_arguments,
    check_reference,
    check_space,
    check_tokens,
    check_vocabulary,
    free_text,
)
from treegym.agents.policies.lm_children import child_scores
from treegym.agents.policies.lm_episodes import Episodes, by_length
from treegym.agents.policies.lm_parts import Free, head_of, layers_below, load_adapters, with_adapters
from treegym.agents.policies.lm_tree import Shape, tree_states
from treegym.agents.policies.lm_walk import Layers, Walk
from treegym.agents.processes import gather, shard, whole, writes
from treegym.checks import one_of
from treegym.errors import ConfigError, require

__all__ = ["LMPolicy"]

TRUNKS, OPTIMIZERS, PACKINGS = ("shared", "own"), ("adamw", "adamw8bit"), ("auto", "episodes", "trees")


class LMPolicy(ChildScorer, BasePolicy):
    """Any causal language model of `transformers` as a policy over children given as token ids, one or several each.

    Args:
        observation_space: Dict with "context", "children" and "action_mask" (the view "tokens").
        action_space: Discrete(K).
        lr_schedule: as SB3 passes it; unused, the agent owns the optimizer.
        model: a bundled name, a directory or a name on a hub.
        value_trunk: "shared": the value reads the policy's last hidden state; "own": a copy of the trunk.
        lora_rank: train low-rank adapters of this rank instead of all weights (extra `lora`); they are float32.
        adapters: a folder of adapters to go on from (`save_adapters`).
        gradient_checkpointing: recompute activations while learning, for less memory.
        dtype: of the weights: float32, bfloat16, float16, or auto: as is fast here. What is learned is kept in float32:
            adapters, and copies of all weights that the optimizer keeps (`masters.py`).
        compile_model: run the layers through ``torch.compile``.
        anchor: weight of a loss that keeps the probability of the whole vocabulary on the children (see `lm_anchor`);
            without it, nothing in a loss over children holds the other tokens down.
        reference: the model that the KL of learning (`kl_coef`) is measured to; None: this one as it is at the start.
        optimizer: "adamw", or "adamw8bit" (extra `8bit`).
        packing: "episodes" reads each, those of one beginning together; "trees" reads all shared beginnings once, by a
            mask of ancestors: the same loss and gradient (see `lm_tree`), less work where episodes share much; "auto":
            trees where layers are the model's own and take such masks.
        local_files_only: never ask a hub for the models; a checkpoint never does.
    """

    unit = "episode"
    loads_models = True
    needs: tuple[str, ...] | None = ("context", "children", MASK)

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any = None,
        *,
        model: str = "tiny-primary",
        value_trunk: str = "shared",
        lora_rank: int | None = None,
        adapters: str | None = None,
        gradient_checkpointing: bool = False,
        dtype: str = "float32",
        compile_model: bool = False,
        anchor: float = 0.0,
        reference: str | None = None,
        optimizer: str = "adamw",
        packing: str = "auto",
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> None:
        check_arguments(LMPolicy, kwargs)
        BasePolicy.__init__(self, observation_space, action_space, **kwargs)
        check_space(observation_space)
        if value_trunk not in TRUNKS:
            raise ConfigError(f"value_trunk is {value_trunk!r}; it must be one of {', '.join(TRUNKS)}")
        if not (isinstance(anchor, (int, float)) and anchor >= 0.0):
            raise ConfigError(f"anchor is {anchor!r}; it must be at least 0")
        self.packing = one_of("packing", packing, PACKINGS)
        self.free: Free | None = None  # set where the environment's texts are free: then only contexts are read
        from treegym.models import load_model

        self.anchor = float(anchor)
        loaded = load_model(model, dtype=dtype, local_files_only=local_files_only)
        self.tokenizer = loaded.tokenizer
        self.lm = loaded.model
        self.model_name, self.optimizer_name = model, one_of("optimizer", optimizer, OPTIMIZERS)
        self._reference: list[Any] = []  # in a list, so that it is not part of this module
        if reference is not None:
            other = load_model(reference, dtype=dtype, local_files_only=local_files_only)
            check_reference(self.tokenizer, other.tokenizer, reference)
            self._reference = [other.model.requires_grad_(False)]
        for module in self.lm.modules():  # dropout would make the ratio of new to old probabilities wander from 1
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        self.lm.requires_grad_(True)
        check_vocabulary(observation_space, self.lm, model)
        if gradient_checkpointing:
            self.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if adapters is not None:
            self.lm = load_adapters(self.lm, adapters)
        elif lora_rank is not None:
            self.lm = with_adapters(self.lm, lora_rank)
        size = self.lm.config.get_text_config().hidden_size
        self.critic_trunk = copy.deepcopy(layers_below(self.lm)) if value_trunk == "own" else None
        self.value_head = nn.Linear(size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self._layers = torch.compile(layers_below(self.lm), dynamic=True) if compile_model else None
        self._config = self.lm.config.get_text_config()
        self._trees = Layers.of(layers_below(self.lm), self._config, self.tokenizer).takes_trees
        self._shards: list[Any] = []
        self._walk, self._llama_walk = Walk(), LlamaWalk()
        self._llama: Llama | None = None
        self._llama_critic: Llama | None = None
        if self._layers is None:
            self._llama = Llama.of(layers_below(self.lm))
            self._llama_critic = None if self.critic_trunk is None else Llama.of(self.critic_trunk)
        self._trees = self._llama is None and self._layers is None and self._trees

    def check_env(self, env: Any) -> None:
        """Raises ConfigError where the environment's tokens are not this model's."""
        check_tokens(env, self.tokenizer, self.model_name)
        self.free = None if self._shards else free_text(env)
        self.needs = ("context", "children", MASK) if self.free is None else ("context",)

    def frozen(self) -> ChildScorer:
        """Returns what the KL is measured to: the model named as reference, or the policy as it is now."""
        memo = {id(weight): weight for weight in self.lm.parameters() if not weight.requires_grad}  # shared, not copied
        copied = copy.deepcopy(self, memo)
        if self._reference:
            copied.lm = self._reference[0].to(next(self.parameters()).device)
            copied._llama = None if self._layers is not None else Llama.of(layers_below(copied.lm))
            copied._layers = None
        return copied

    def make_optimizer(self, parameters: list[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
        """Returns AdamW, with moments of 8 bits if so asked for."""
        if self.optimizer_name == "adamw":
            low = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in parameters)
            return MasterAdamW(parameters, **settings) if low else super().make_optimizer(parameters, **settings)
        if self._shards:
            raise ConfigError('layers in shards are stepped by optimizer="adamw"; of moments of 8 bits there are none')
        bits = require("bitsandbytes", extra="8bit", purpose="an optimizer with moments of 8 bits")
        made: torch.optim.Optimizer = bits.optim.AdamW8bit(parameters, **settings)
        return made

    def shard(self) -> None:
        """Puts the weights of the layers in shards over the processes; all other weights are copies."""
        if hasattr(self.lm, "merge_and_unload"):
            raise ConfigError("adapters (lora_rank) are learned without shards: launch without FSDP")
        blocks = [child for child in layers_below(self.lm).children() if isinstance(child, nn.ModuleList)]
        if len(blocks) != 1:
            raise ConfigError(f"{self.model_name}: which modules its layers are is not known, so it has no shards")
        self._shards = shard(blocks[0])

    def idle(self) -> None:
        if self._shards:
            nothing = torch.zeros(1, 1, dtype=torch.long, device=next(self.parameters()).device)
            (self.hidden(nothing).sum() * 0.0).backward()

    # ---------------------------------------------------------------- forward passes

    def hidden(self, context: torch.Tensor, trunk: nn.Module | None = None, **options: Any) -> torch.Tensor:
        """Returns the last hidden states ``[B, L, D]`` of contexts ``[B, L]``, padded with -1 on the right.

        Attention is causal, so what stands right of a token, padding too, cannot change its state.
        """
        length = int((context >= 0).sum(1).max())
        layers = trunk or self._layers or layers_below(self.lm)
        return layers(input_ids=context[:, :length].clamp(min=0), use_cache=False, **options).last_hidden_state

    def head(self) -> Head:
        """Returns what turns states into logits of the tokens, ends of free text taken together."""
        return head_of(self.lm, self.tokenizer.vocab_size, self.free)

    def scores(self, states: torch.Tensor, obs: Observations) -> torch.Tensor:
        """Returns the logits ``[N, K] float32`` of the children of states ``[N, D]``."""
        return self._said(states, obs).picked

    def _said(self, states: torch.Tensor, obs: Observations) -> Said:
        if self._shards and obs["children"].dim() == 3 and torch.is_grad_enabled():
            raise ConfigError("children of several tokens need passes of their own, which shards cannot take in step")
        head = head_of(self.lm, self.tokenizer.vocab_size)
        return child_scores(states, obs["children"], obs["context"], hidden=self.hidden, head=head)

    def _last(self, context: torch.Tensor, trunk: nn.Module | None = None) -> torch.Tensor:
        ends = (context >= 0).sum(1) - 1
        states = self.hidden(context, trunk)
        return states[torch.arange(len(ends), device=ends.device), ends]

    def logits(self, obs: Observations) -> torch.Tensor:
        return self.scores(self._last(obs["context"]), obs)

    def values(self, obs: Observations) -> torch.Tensor:
        return self._value(self._last(obs["context"], self.critic_trunk))

    def both(self, obs: Observations) -> tuple[torch.Tensor, torch.Tensor]:
        states = self._last(obs["context"])
        own = states if self.critic_trunk is None else self._last(obs["context"], self.critic_trunk)
        return self.scores(states, obs), self._value(own)

    def _value(self, states: torch.Tensor) -> torch.Tensor:
        return self.value_head(states.to(self.value_head.weight.dtype)).squeeze(-1).float()

    def evaluate(
        self,
        obs: Observations,
        actions: torch.Tensor,
        *,
        with_value: bool = True,
        episode_lengths: np.ndarray | None = None,
    ) -> Judged:
        """Judges all steps of whole episodes with one forward pass per episode; see `ChildScorer.evaluate`."""
        if episode_lengths is None:
            return super().evaluate(obs, actions, with_value=with_value)
        context = obs["context"]
        states, own = self._episode_states(context, episode_lengths, with_value=with_value)
        value = torch.zeros(len(actions), device=context.device) if own is None else self._value(own)
        if self.free is not None:
            chosen, entropy = token_log_probs(states, self.head(), actions)
            return Judged(chosen, entropy, value, chosen[:, None])
        said = self._said(states, obs)
        logits = said.picked
        if self.anchor and torch.is_grad_enabled():
            logits = anchored(logits, said.total, obs[MASK], self.anchor)
        log_probs = masked_log_softmax(logits, obs[MASK])
        chosen = log_probs.gather(1, actions[:, None]).squeeze(1)
        return Judged(chosen, masked_entropy(log_probs), value, logits)

    def episode_values(self, obs: Observations, episode_lengths: np.ndarray) -> torch.Tensor:
        """Returns the value ``[N]`` of every step of whole episodes, with gradients by the critic's parameters only."""
        trunk = self.critic_trunk
        with torch.set_grad_enabled(torch.is_grad_enabled() and trunk is not None):
            packed = Episodes(obs["context"], episode_lengths)
            states = self._read(packed, trunk, self._llama if trunk is None else self._llama_critic)
        return self._value(states)

    def _episode_states(
        self, context: torch.Tensor, episode_lengths: np.ndarray, *, with_value: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the states ``[N, D]`` after every step's context, and those the value reads (None: not asked for)."""
        episodes = Episodes(context, episode_lengths)
        states = self._read(episodes, None, self._llama)
        if not with_value or self.critic_trunk is None:
            return states, states if with_value else None
        return states, self._read(episodes, self.critic_trunk, self._llama_critic)

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Within it, layers are the model's own, even where they could be read packed."""
        kept, self._llama, self._llama_critic = (self._llama, self._llama_critic), None, None
        try:
            yield
        finally:
            self._llama, self._llama_critic = kept

    def _read(self, episodes: Episodes, trunk: nn.Module | None, llama: Llama | None) -> torch.Tensor:
        """Returns the states ``[N, D]`` after every step's context, by one pass over each episode's last one."""
        if self._as_trees(llama):
            layers = trunk or self._layers or layers_below(self.lm)
            shape = Shape(self.lm.config.get_text_config(), self.lm.get_output_embeddings().weight.dtype)
            longest = episodes.context[torch.as_tensor(episodes.ends, device=episodes.context.device)]
            return tree_states(longest, episodes.number, episodes.at, layers=layers, shape=shape)
        if llama is not None and episodes.width <= llama.places and fits(llama.trunk):
            return torch.cat([llama.states(packed)[torch.from_numpy(steps)] for packed, steps in episodes.packed()])
        device = episodes.context.device
        longest = episodes.context[torch.as_tensor(episodes.ends, device=device)]  # [E, L]
        number = torch.as_tensor(episodes.number, device=device)
        at = torch.as_tensor(episodes.at, device=device)
        if self._shards:  # gathered as often in every process
            return self.hidden(longest, trunk)[number, at]
        return by_length(partial(self.hidden, trunk=trunk), longest, number, at)

    def _as_trees(self, llama: Llama | None) -> bool:
        if self.packing != "auto":
            return self.packing == "trees"
        # without its own layers for a while (`plainly`), a small Llama is read as any model is
        return llama is None and self._trees and not self._shards

    @torch.no_grad()
    def infer(self, rows: Mapping[str, np.ndarray], *, with_value: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits and values; keys and values of the contexts are kept for the step after."""
        states = self._walked(rows["context"])
        values = self._values_there(rows["context"], states, with_value=with_value)
        if "children" not in rows:  # free text: its tokens are drawn by `act`
            return np.zeros((len(states), 0), np.float32), values
        obs = {key: torch.as_tensor(rows[key], device=states.device) for key in ("context", "children")}
        return self.scores(states, obs).float().cpu().numpy(), values

    @torch.no_grad()
    def act(
        self, rows: Mapping[str, np.ndarray], uniform: np.ndarray, *, with_value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples a child for each row, or on free text a token; see `ChildScorer.act`."""
        if self.free is None:
            return super().act(rows, uniform, with_value=with_value)
        self.count(len(uniform))
        states = self._walked(rows["context"])
        tokens, log_probs = draw(states, self.head(), torch.from_numpy(uniform).to(states.device))
        values = self._values_there(rows["context"], states, with_value=with_value)
        return tokens.cpu().numpy(), log_probs.float().cpu().numpy(), values

    @torch.no_grad()
    def best(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the likeliest child of each row ``[B] int64``, or on free text the likeliest token."""
        if self.free is None:
            return super().best(rows)
        self.count(len(rows["context"]))
        return likeliest(self._walked(rows["context"]), self.head()).cpu().numpy()

    def _walked(self, contexts: np.ndarray) -> torch.Tensor:
        """Returns the states ``[B, D]`` after contexts; their keys and values are kept for the step after."""
        if self._llama is not None and self._llama_walk.can_advance(self._llama, contexts):
            return self._llama_walk.advance(self._llama)
        return self._walk.advance(Layers.of(layers_below(self.lm), self._config, self.tokenizer), contexts)

    def _values_there(self, contexts: np.ndarray, states: torch.Tensor, *, with_value: bool) -> np.ndarray:
        if not with_value:
            return np.zeros(len(states), np.float32)
        if self.critic_trunk is not None:
            states = self._last(torch.as_tensor(contexts, device=states.device), self.critic_trunk)
        return self._value(states).cpu().numpy()

    def set_training_mode(self, mode: bool) -> None:
        """Switches modes; weights may change in training, so what was kept of contexts is forgotten."""
        self._walk.forget()
        self._llama_walk.forget()
        gather(self._shards, together=not mode)
        super().set_training_mode(mode)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.value_head.parameters()
        if self.critic_trunk is not None:
            yield from self.critic_trunk.parameters()

    def save_model(self, directory: str | Path) -> None:
        """Writes the language model as `transformers` does, with its tokenizer: the bundled way.

        Of several processes the first one writes; with layers in shards all have to call this.
        """
        from treegym.models.local.saving import save_model

        model = self.merged()
        if writes():
            save_model(model, self.tokenizer, directory)

    def merged(self) -> Any:
        """Returns the language model; adapters or shards, if there are any, are joined in a copy of it."""
        if self._shards:
            model = type(self.lm)(self.lm.config)
            model.load_state_dict({name: whole(tensor) for name, tensor in self.lm.state_dict().items()})
            gather(self._shards, together=True)
            return model
        return copy.deepcopy(self.lm).merge_and_unload() if hasattr(self.lm, "merge_and_unload") else self.lm

    def __deepcopy__(self, memo: dict[int, Any]) -> LMPolicy:
        """Copies the weights but not what is kept of contexts."""
        fresh = self.__class__.__new__(self.__class__)
        memo[id(self)] = fresh
        for name, value in self.__dict__.items():
            made = {"_walk": Walk, "_llama_walk": LlamaWalk}.get(name)
            fresh.__dict__[name] = copy.deepcopy(value, memo) if made is None else made()
        return fresh
