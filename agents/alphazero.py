"""AlphaZero and expert iteration: search improves the policy, the policy learns from search.

    loss = c_v (z - v)^2 - pi . log p + c |theta|^2        (https://arxiv.org/abs/1712.01815)

pi is the visit distribution (PUCT) or the completed-Q policy (Gumbel, https://openreview.net/forum?id=bERaNdoegnO);
z the discounted return, or an n-step return that ends in the search's value.

What is worth knowing here: a search on a training root may see the reward (`selfplay_sees`), one on a held-out root may
not (`planner_sees`), so there an end is worth what the value network says. It therefore learns ends too (`end_share`).

Letters: B lanes, N positions, K children.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from treegym.agents.advantages import discounted_returns
from treegym.agents.base import Agent
from treegym.agents.masking import masked_log_softmax
from treegym.agents.planning import SEES, ClosedPlanner, Planner, make_planner
from treegym.agents.policies.base import MASK
from treegym.agents.replay import Replay
from treegym.agents.schedules import Schedule, as_schedule
from treegym.agents.settings import Settings
from treegym.agents.standing import stand
from treegym.agents.state import optimizer_state, set_optimizer_state, within
from treegym.errors import ConfigError

__all__ = ["AlphaZero", "AlphaZeroSettings", "ExpertIteration"]


@dataclass(frozen=True)
class AlphaZeroSettings(Settings):
    """AlphaZero's switches."""

    gamma: float = 1.0
    method: str = "gumbel"  # or "puct", or any tree method of treegym.search
    num_simulations: int = 128
    predict_simulations: int | None = None  # when acting; None: as many as when learning
    n_episodes: int = 128  # episodes of self-play an iteration
    learning_rate: Schedule = 1e-3
    batch_size: int = 512
    replay_ratio: float = 4.0  # how often each new position is learned from, on average
    buffer_size: int = 60_000
    vf_coef: float = 1.0
    l2: float = 1e-4
    max_grad_norm: float | None = 1.0
    value_target: str = "return"  # or "n_step"
    n_step: int = 5
    temperature: float = 1.0  # moves are sampled from pi ** (1 / temperature) ...
    temperature_moves: int = 4  # ... for the first so many moves of an episode; then the search's move is played
    root_noise: float = 0.25  # PUCT's share of Dirichlet noise while learning
    reanalyse: float = 0.0  # share of each batch whose pi is searched anew with the networks of today
    selfplay_sees: str = "verifier"  # what the search on training roots is told: "verifier" or "value"
    planner_sees: str = "value"  # what the search of `predict` is told
    child_value_coef: float = 1.0  # weight of (Q_search(s, a) - Q(s, a))^2 over the children that search visited
    exploring_starts: float = 0.5  # share of episodes that begin at a random inner node (token trees)
    tabulate: bool = True  # closed trees: judge every node once, search inside one kernel
    search_options: dict[str, Any] | None = None  # passed to the search, such as {"c_scale": 0.3}

    def __post_init__(self) -> None:
        for name in ("selfplay_sees", "planner_sees"):
            if getattr(self, name) not in SEES:
                raise ConfigError(f"{name} must be one of {', '.join(SEES)}, got {getattr(self, name)!r}")
        if self.value_target not in ("return", "n_step"):
            raise ConfigError(f"value_target must be 'return' or 'n_step', got {self.value_target!r}")
        if self.num_simulations < 1:
            raise ConfigError(f"num_simulations must be at least 1, got {self.num_simulations}")
        for name in ("reanalyse", "exploring_starts"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")


class AlphaZero(Agent):
    """Self-play with the suite's own search.

    `predict` searches when the observation is one of an environment it was given (`set_env`, or the constructor's);
    otherwise it says once that it falls back to the raw policy.
    """

    settings_class = AlphaZeroSettings
    settings: AlphaZeroSettings
    uses_value: ClassVar[bool] = True

    def _setup_learning(self) -> None:
        s = self.settings
        self.lr_schedule = as_schedule(s.learning_rate, name="learning_rate")
        parameters = list(self.policy.parameters()) if self.uses_value else self.scorer.actor_parameters()
        # The l2 term of the loss, as a gradient: weight_decay of plain Adam adds c theta to it.
        self.optimizer = torch.optim.Adam(parameters, lr=self.lr_schedule(1.0), weight_decay=2 * s.l2, fused=True)
        self.replay = Replay(s.buffer_size)
        self._planners: dict[tuple[int, str], Planner | None] = {}
        self._prepared = -1  # the update whose networks the planners of `predict` hold
        self._ready: dict[int, set[int]] = {}  # the roots each of them has tables for
        self._fell_back = False

    def _enter_world(self) -> None:
        self._planners.clear()
        self._ready.clear()

    def planner(self, sees: str, world: Any = None) -> Planner | None:
        """Returns the planner for a world that is told so much (made once)."""
        world = self.world if world is None else world
        if world is None:
            return None
        key = (id(world), sees)
        if key not in self._planners:
            self._planners[key] = make_planner(world, sees=sees, tabulate=self.settings.tabulate)
        return self._planners[key]

    # ------------------------------------------------------------------ self-play

    def collect(self, callback: BaseCallback) -> dict[str, np.ndarray]:
        """Plays episodes by search and returns their positions."""
        s, world = self.settings, self.world
        assert world is not None
        planner = self.planner(s.selfplay_sees)
        if planner is None:
            raise ConfigError(
                "AlphaZero plans, so the environment must offer clone_state and restore_state (or be a token tree); "
                f"{type(world.env).__name__} does not: use PPO"
            )
        stepper = self.stepper(callback)
        parts = []
        for first in range(0, s.n_episodes, world.num_envs):
            parts.append(self._play(planner, min(world.num_envs, s.n_episodes - first), stepper))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _play(self, planner: Planner, size: int, stepper: Any) -> dict[str, np.ndarray]:
        s, world = self.settings, self.world
        assert world is not None
        lanes = world.num_envs
        active = np.arange(lanes) < size
        roots = world.roots()
        chosen = None
        if roots is not None:
            chosen = self.rng.choice(roots, size=lanes, replace=lanes > len(roots))
        world.reset(np.ones(lanes, np.bool_), roots=chosen, seed=int(self.rng.integers(2**31)))
        if isinstance(planner, ClosedPlanner) and s.exploring_starts:
            self._scatter(planner, size)
        planner.prepare(self.scorer_for_planning(), None if chosen is None else chosen[:size])
        rows_of, lane_of, policy_of, q_of, value_of, reward_of, state_of = [], [], [], [], [], [], []
        actions = np.zeros(lanes, np.int64)
        correct = np.full(lanes, np.nan, np.float32)
        move = 0
        while active.any():
            who = np.flatnonzero(active)
            rows = world.observe(who)
            states = planner.states(who)
            result = self._search(planner, states, s.num_simulations, explore=True)
            picked = result.action.astype(np.int64)
            if move < s.temperature_moves and s.temperature > 0:
                picked = self._sampled(result.policy)
            actions[who] = picked
            outcome = world.step(actions, active)
            rows_of.append(rows)
            lane_of.append(who)
            policy_of.append(result.policy)
            q_of.append(result.q)
            value_of.append(result.value)
            reward_of.append(outcome.reward[who])
            state_of.append(
                states if isinstance(states, np.ndarray) and states.dtype != object else np.full(len(who), -1)
            )
            ended = active & (outcome.terminated | outcome.truncated)
            if outcome.success is not None:
                correct[ended] = outcome.success[ended]
            active &= ~ended
            move += 1
            stepper(len(who), outcome)
        lane = np.concatenate(lane_of)
        order = np.argsort(lane, kind="stable")
        lengths = np.bincount(lane, minlength=size)
        rewards = np.concatenate(reward_of)[order]
        searched = np.concatenate(value_of)[order]
        self._note(rewards, lengths, correct[:size])
        needs = self.scorer.needs
        kept = [key for key in rows_of[0] if needs is None or key in needs]
        return {f"obs.{key}": np.concatenate([rows[key] for rows in rows_of])[order] for key in kept} | {
            "policy": np.concatenate(policy_of)[order].astype(np.float32),
            "q": np.concatenate(q_of)[order],
            "target": self._value_targets(rewards, searched, lengths),
            "state": np.concatenate(state_of)[order].astype(np.int64),
        }

    def _scatter(self, planner: ClosedPlanner, size: int) -> None:
        """Moves a share of the lanes to random inner nodes of their roots' trees: positions play would hardly reach."""
        assert self.world is not None
        tree, state = planner.world.tree, self.world.state()
        inner = np.flatnonzero(~planner.terminal)
        root = planner.world.root_index[inner]  # ascending, as nodes are stored tree by tree or level by level
        order = np.argsort(root, kind="stable")
        inner, root = inner[order], root[order]
        moved = np.flatnonzero(self.rng.random(size) < self.settings.exploring_starts)
        own = planner.world.root_index[state["node"][moved]]
        first, last = np.searchsorted(root, own), np.searchsorted(root, own, side="right")
        node = inner[first + (self.rng.random(len(moved)) * (last - first)).astype(np.int64)]
        state["node"][moved], state["steps"][moved] = node, tree.depth[node]
        self.world.set_state(state)

    def _search(self, planner: Planner, states: Any, simulations: int, *, explore: bool) -> Any:
        s = self.settings
        options: dict[str, Any] = {"discount": s.gamma, **(s.search_options or {})}
        if s.method == "gumbel":
            options.setdefault("gumbel_scale", 1.0 if explore else 0.0)
        elif explore:
            options.setdefault("root_noise", s.root_noise)
        seed = int(self.rng.integers(2**31)) if explore else 0
        return planner.search(states, method=s.method, num_simulations=simulations, seed=seed, **options)

    def _sampled(self, policy: np.ndarray) -> np.ndarray:
        """Returns moves drawn from pi ** (1 / temperature) ``[B] int64``."""
        weights = policy.astype(np.float64) ** (1.0 / self.settings.temperature)
        running = weights.cumsum(1)
        return (running > self.rng.random((len(policy), 1)) * running[:, -1:]).argmax(1)

    def _value_targets(self, rewards: np.ndarray, searched: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        s = self.settings
        if s.value_target == "return":
            return discounted_returns(rewards, gamma=s.gamma, lengths=lengths)
        return n_step_returns(rewards, searched, lengths, n=s.n_step, gamma=s.gamma)

    def _note(self, rewards: np.ndarray, lengths: np.ndarray, correct: np.ndarray) -> None:
        assert self.ep_info_buffer is not None
        assert self.ep_success_buffer is not None
        totals = np.bincount(np.repeat(np.arange(len(lengths)), lengths), rewards, minlength=len(lengths))
        self.ep_info_buffer.extend(
            {"r": total, "l": length, "t": 0.0} for total, length in zip(totals.tolist(), lengths.tolist(), strict=True)
        )
        self.ep_success_buffer.extend(correct[~np.isnan(correct)].tolist())
        self._episode_num += len(lengths)

    def scorer_for_planning(self) -> Any:
        """Returns the policy as planners ask it."""
        return self.scorer if self.uses_value else _Valueless(self.scorer)

    # ------------------------------------------------------------------ learning

    def update(self, rollout: dict[str, np.ndarray]) -> None:
        s = self.settings
        self.replay.add(rollout)
        rate = self.lr_schedule(self._current_progress_remaining)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        updates = max(1, math.ceil(len(rollout["target"]) * s.replay_ratio / s.batch_size))
        self.policy.set_training_mode(True)
        losses = []
        planner = self.planner(s.selfplay_sees)
        for _ in range(updates):
            batch = self.replay.rows(self.replay.sample(s.batch_size, self.rng))
            if s.reanalyse > 0 and isinstance(planner, ClosedPlanner):
                self._reanalyse(planner, batch)
            losses.append(self._step(batch))
        self.policy.set_training_mode(False)
        self._n_updates += updates
        policy_loss, value_loss = np.mean(losses, axis=0)
        self.logger.record("train/policy_loss", float(policy_loss))
        self.logger.record("train/value_loss", float(value_loss))
        self.logger.record("train/learning_rate", rate)

    def _step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        s, policy = self.settings, self.scorer
        obs = policy.tensors({key[4:]: array for key, array in batch.items() if key.startswith("obs.")})
        target = torch.as_tensor(batch["policy"], device=self.device)
        if self.uses_value:
            logits, values = policy.both(obs)
        else:
            logits = policy.logits(obs)
        log_probs = masked_log_softmax(logits, obs.get(MASK))
        policy_loss = -(target * log_probs.masked_fill(target == 0, 0.0)).sum(1).mean()
        loss = policy_loss
        value_loss = torch.zeros(())
        if self.uses_value:
            value_loss = ((values - torch.as_tensor(batch["target"], device=self.device)) ** 2).mean()
            loss = loss + s.vf_coef * value_loss
            if s.child_value_coef:
                found = torch.as_tensor(batch["q"], device=self.device)
                visited = ~torch.isnan(found)
                error = (policy.child_values(obs) - found.nan_to_num(0.0)) * visited
                loss = loss + s.child_value_coef * (error**2).sum() / visited.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if s.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], s.max_grad_norm)
        self.optimizer.step()
        return float(policy_loss.detach()), float(value_loss.detach())

    def _reanalyse(self, planner: ClosedPlanner, batch: dict[str, np.ndarray]) -> None:
        """Replaces pi of the first part of a batch by what search says with the networks of today."""
        count = round(len(batch["state"]) * self.settings.reanalyse)
        fresh = np.flatnonzero(batch["state"][:count] >= 0)
        if len(fresh):
            states = batch["state"][fresh]
            planner.prepare(self.scorer_for_planning(), np.unique(planner.world.root_index[states]))
            result = self._search(planner, states, self.settings.num_simulations, explore=True)
            batch["policy"][fresh] = result.policy

    # ------------------------------------------------------------------ acting

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        """Searches where the observations can be placed in an environment it knows; else asks the raw policy."""
        s = self.settings
        place = stand(self.known_worlds(), rows)
        planner = None if place is None else self.planner(s.planner_sees, place.world)
        if place is None or planner is None:
            if not self._fell_back:
                self._fell_back = True
                warnings.warn(
                    f"{type(self).__name__} cannot place this observation in an environment it knows, so it acts by "
                    "its raw policy, without search: call set_env(env) with the environment you step",
                    stacklevel=4,
                )
            return super().choose(rows, deterministic=deterministic)
        states = place.states(planner)
        self._make_ready(planner, states)
        simulations = s.predict_simulations or s.num_simulations
        result = self._search(planner, states, simulations, explore=False)
        if deterministic:
            return result.action.astype(np.int64)
        return self._sampled(result.policy)

    def _make_ready(self, planner: Planner, states: Any) -> None:
        """Takes the networks of today into the planner: for tables, the trees of the roots that are asked about."""
        if self._prepared != self._n_updates:
            self._prepared = self._n_updates
            self._ready.clear()
        if not isinstance(planner, ClosedPlanner):
            if id(planner) not in self._ready:
                planner.prepare(self.scorer_for_planning())
                self._ready[id(planner)] = set()
            return
        ready = self._ready.setdefault(id(planner), set())
        missing = set(np.unique(planner.world.root_index[states]).tolist()) - ready
        if missing:
            planner.prepare(self.scorer_for_planning(), np.array(sorted(missing)))
            ready |= missing

    def training_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        values, arrays = optimizer_state(self.optimizer)
        arrays = {f"optimizer.{key}": array for key, array in arrays.items()}
        return {"optimizer": values}, arrays | {f"replay.{k}": a for k, a in self.replay.state().items()}

    def set_training_state(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        set_optimizer_state(self.optimizer, values["optimizer"], within(arrays, "optimizer."))
        self.replay.set_state(within(arrays, "replay."))


class _Valueless:
    """A policy whose values are all zero."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.observation_space, self.action_space = policy.observation_space, policy.action_space

    def infer(self, rows: dict[str, np.ndarray], *, with_value: bool = True) -> tuple[np.ndarray, np.ndarray]:
        return self._policy.infer(rows, with_value=False)

    def judge(self, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, values = self.infer(rows)
        return logits, values, np.zeros_like(logits)


class ExpertIteration(AlphaZero):
    """The same without a value head: search over priors and rewards alone (https://arxiv.org/abs/1705.08439)."""

    uses_value: ClassVar[bool] = False


def n_step_returns(rewards: np.ndarray, values: np.ndarray, lengths: np.ndarray, *, n: int, gamma: float) -> np.ndarray:
    """Returns r_t + ... + gamma^(n-1) r_{t+n-1} + gamma^n v_{t+n} within each episode ``[N] float32``."""
    out = np.zeros(len(rewards), np.float64)
    start = 0
    for length in lengths.tolist():
        for t in range(start, start + length):
            end = min(t + n, start + length)
            out[t] = (rewards[t:end] * gamma ** np.arange(end - t)).sum()
            if end < start + length:
                out[t] += gamma**n * values[end]
        start += length
    return out.astype(np.float32)
