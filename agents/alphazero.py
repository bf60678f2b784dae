"""AlphaZero and expert iteration: search improves the policy, the policy learns from search.

    loss = c_v (z - v)^2 - pi . log p + c |theta|^2        (https://arxiv.org/abs/1712.01815)

pi is the visit distribution (PUCT) or the completed-Q policy (Gumbel, https://openreview.net/forum?id=bERaNdoegnO);
z the discounted return, or an n-step return that ends in the search's value.

What is worth knowing here: a search on a training root may see the reward (`selfplay_sees`), one on a held-out root may
not (`planner_sees`), so there an end is worth what the critic says of choosing it (`child_value_coef`: it learns that
from the values that search found), and a step what the policy thinks of it (`likelihood_weight`).

Letters: B lanes, N positions, K children.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from treegym.agents.alphazero_settings import ELSEWHERE, LANES, NETWORK, AlphaZeroSettings
from treegym.agents.base import Agent
from treegym.agents.costs import Costs
from treegym.agents.masking import MASK, masked_log_softmax
from treegym.agents.planning.doubles import more_of
from treegym.agents.planning.kept import KeptPlanners
from treegym.agents.planning.memory import memory_width
from treegym.agents.planning.planners import ClosedPlanner, WorldPlanner
from treegym.agents.planning.replay import ReplayBuffer
from treegym.agents.planning.selfplay import SelfPlay, sampled
from treegym.agents.planning.symmetries import with_images
from treegym.agents.planning.units import Units
from treegym.agents.play.foreign_worlds import ListWorld
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.rollout import uncounted
from treegym.agents.play.standing import Place
from treegym.agents.play.world import World
from treegym.agents.play.worlds import make_world
from treegym.agents.policies.base import MEMORY
from treegym.agents.policies.mlp import MlpPolicy, MultiInputPolicy
from treegym.agents.schedules import as_schedule
from treegym.agents.schema import Expected, check_json
from treegym.agents.state import optimizer_state, set_optimizer_state, within
from treegym.errors import ConfigError

__all__ = ["AlphaZero", "AlphaZeroSettings", "ExpertIteration"]


class AlphaZero(Agent):
    """Self-play with the suite's own search.

    `predict` searches when the observation is one of an environment it was given (`set_env`, or the constructor's);
    otherwise it says once that it falls back to the raw policy.
    """

    settings_class = AlphaZeroSettings
    settings: AlphaZeroSettings
    plans: ClassVar[bool] = True
    uses_value: ClassVar[bool] = True

    @classmethod
    def suited(cls, policy: type) -> Mapping[str, Any]:
        return ELSEWHERE if issubclass(policy, MlpPolicy) else {}

    @classmethod
    def suited_network(cls, policy: type) -> dict[str, Any] | None:
        return dict(NETWORK) if policy in (MlpPolicy, MultiInputPolicy) else None

    @classmethod
    def world_of(cls, env: Any, settings: Any) -> World:
        """Returns an environment as a world, one that came single as several lanes, which are searched together."""
        env = gym.make(env) if isinstance(env, str) else env
        if isinstance(env, gym.Env) and not hasattr(env.unwrapped, "layout"):
            more = more_of(env, (settings.n_envs or LANES) - 1)
            if more or settings.n_envs is None:
                return ListWorld([env, *more])
        return make_world(env, num_envs=settings.n_envs)

    def _setup_model(self) -> None:
        tree = self.world.tree_world if isinstance(self.world, LanesWorld) else None
        remembers = self.settings.path_memory and self.uses_value and getattr(self.policy_class, "takes_memory", False)
        loaded = "layout" in self.policy_kwargs  # a checkpoint's arguments are complete
        if tree is not None and remembers and not loaded:
            self.policy_kwargs = {"memory": memory_width(tree.tree), **self.policy_kwargs}
        super()._setup_model()

    def _setup_learning(self) -> None:
        s = self.settings
        self.lr_schedule = as_schedule(s.learning_rate, name="learning_rate")
        parameters = list(self.policy.parameters()) if self.uses_value else self.scorer.actor_parameters()
        head = list(self.policy.value_net.parameters()) if self._measures_values() else []
        apart = {id(parameter) for parameter in head}
        groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in apart]}]
        if head:  # its weights grow with the unit, which is no reason to hold them back
            groups.append({"params": head, "weight_decay": 0.0})
        # The l2 term of the loss, as a gradient: weight_decay of plain Adam adds c theta to it.
        self.optimizer = torch.optim.Adam(groups, lr=self.lr_schedule(1.0), weight_decay=2 * s.l2, fused=True)
        self.units = Units()
        self.replay = ReplayBuffer(s.buffer_size)
        self._planners = KeptPlanners(self.costs, tabulate=s.tabulate, likelihood_weight=s.likelihood_weight)
        self._fell_back = False
        self._play: SelfPlay | None = None  # lanes may be in the middle of episodes

    def _measures_values(self) -> bool:
        return self.settings.value_unit and self.uses_value and hasattr(self.policy, "value_net")

    def _enter_world(self) -> None:
        self._planners.forget()
        self._play = None

    def planner(self, sees: str, world: Any = None) -> WorldPlanner | None:
        """Returns the planner for a world that is told so much (made once)."""
        world = self.world if world is None else world
        return None if world is None else self._planners.planner(world, sees)

    def carry(self, costs: Costs) -> None:
        super().carry(costs)
        self._planners.carry(costs)

    # ------------------------------------------------------------------ self-play

    def collect(self, callback: BaseCallback) -> dict[str, np.ndarray]:
        """Plays episodes by search and returns their positions."""
        s, world = self.settings, self.world
        assert world is not None
        planner = self.planner(s.selfplay_sees)
        if planner is None:
            raise ConfigError(
                "AlphaZero plans, so the environment must offer clone_state and restore_state (or be a token tree); "
                f"{type(getattr(world.env, 'unwrapped', world.env)).__name__} does not: use PPO"
            )
        if self._play is None or self._play.planner is not planner:
            self._play = SelfPlay(world, planner, self.scorer, self.rng, s)
        play = self._play
        play.on_step, play.spread = self.stepper(callback), self.units.spread
        policy, longest = self.scorer_for_planning(), self._usual_length()
        if s.n_steps is not None and not isinstance(planner, ClosedPlanner):  # whose tables are made root by root
            played = play.pieces(s.n_steps, policy, longest_opening=longest)
            self._note(played.correct, *zip(*play.finished, strict=True))
            play.finished.clear()
            return played.positions
        parts = []
        for first in range(0, s.n_episodes, world.num_envs):
            played = play.round(min(world.num_envs, s.n_episodes - first), policy, longest_opening=longest)
            self._note(played.correct, played.returns, played.lengths + played.opened)
            parts.append(played.positions)
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _usual_length(self) -> int:
        """Returns how many moves the last episodes took on average."""
        return round(float(np.mean([info["l"] for info in self.ep_info_buffer]))) if self.ep_info_buffer else 0

    def _note(self, correct: np.ndarray, returns: Iterable[float] = (), lengths: Iterable[int] = ()) -> None:
        """Notes episodes that ended, for the log."""
        assert self.ep_info_buffer is not None
        assert self.ep_success_buffer is not None
        ended = [{"r": float(paid), "l": int(lasted), "t": 0.0} for paid, lasted in zip(returns, lengths, strict=True)]
        self.ep_info_buffer.extend(ended)
        self.ep_success_buffer.extend(correct[~np.isnan(correct)].tolist())
        self._episode_num += len(ended)

    def _let_go(self) -> None:
        if self._play is not None:
            self._play.on_step = uncounted

    def scorer_for_planning(self) -> Any:
        """Returns the policy as planners ask it."""
        return self.scorer if self.uses_value else _Valueless(self.scorer)

    # ------------------------------------------------------------------ learning

    def update(self, rollout: dict[str, np.ndarray]) -> None:
        s = self.settings
        if self.world is not None and not isinstance(self.world, LanesWorld):
            rollout = with_images(self.world.env, rollout, int(self.action_space.n))
        self.replay.add(rollout)
        rate = self.lr_schedule(self._current_progress_remaining)
        self.units.note_siblings(rollout["q"])
        if self._measures_values():
            self.units.note_values(self.replay.arrays["target"][: self.replay.size])
        # A head that gives u times as much, learned at u times the rate from a loss in units of u squared, learns as
        # one would whose targets were divided by u (the scaling of https://arxiv.org/abs/1602.07714).
        for group, unit in zip(self.optimizer.param_groups, (1.0, self.units.value), strict=False):
            group["lr"] = rate * unit
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
        self.units.note_error(float(value_loss))
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
            loss = loss + s.vf_coef * value_loss / (self.units.value**2 if self._measures_values() else 1.0)
            if s.child_value_coef and policy.values_children:
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
        """Replaces pi of the first part of a batch by what search says with the current networks."""
        count = round(len(batch["state"]) * self.settings.reanalyse)
        fresh = np.flatnonzero(batch["state"][:count] >= 0)
        if len(fresh):
            states = batch["state"][fresh]
            planner.prepare(self.scorer_for_planning(), np.unique(planner.world.tables.root_index[states]))
            seed = int(self.rng.integers(2**31))
            s = self.settings
            result = planner.search(
                states,
                method=s.method,
                num_simulations=s.num_simulations,
                seed=seed,
                **s.options(explore=True, spread=self.units.spread),
            )
            batch["policy"][fresh] = result.policy

    # ------------------------------------------------------------------ acting

    def decide(
        self, rows: dict[str, np.ndarray], state: Any, *, begun: bool, deterministic: bool
    ) -> tuple[np.ndarray, Any]:
        """Searches where the observations can be placed in an environment it knows; else asks the raw policy.

        With `reuse_tree` the state that comes back holds the trees; handed in with the next observations, of the moves
        that were returned, they are searched on.
        """
        s = self.settings
        place = self.place(rows, state)
        planner = None if place is None else self.planner(s.planner_sees, place.world)
        if place is None or planner is None:
            if not self._fell_back:
                self._fell_back = True
                warnings.warn(
                    f"{type(self).__name__} cannot place this observation in an environment it knows, so it acts by "
                    "its raw policy, without search: call set_env(env) with the environment you step",
                    stacklevel=4,
                )
            return self.choose(rows, deterministic=deterministic), state
        states = planner.states(place.lanes)
        self._planners.prepare(planner, states, self.scorer_for_planning(), update=self._n_updates)
        asked: dict[str, Any] = {
            "method": s.method, "num_simulations": s.predict_simulations or s.num_simulations,
            "seed": 0, **s.options(explore=False, spread=self.units.spread),
        }  # fmt: skip
        session = None
        if not s.reuse_tree:
            result = planner.search(states, **asked)
        else:
            session = None if begun else place.session
            if session is None or place.moves is None:
                session = planner.session(states, **asked)
            else:
                planner.move(session, place.moves, np.ones(len(states), np.bool_), states, seed=0)
            result = planner.run(session)
        actions = result.action.astype(np.int64)
        if not deterministic:
            actions = sampled(result.policy, s.temperature or 1.0, self.rng)
        return actions, state if session is None else Place(place.world, place.lanes, session, actions)

    def training_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        values, arrays = optimizer_state(self.optimizer)
        arrays = {f"optimizer.{key}": array for key, array in arrays.items()}
        arrays |= {f"replay.{k}": a for k, a in self.replay.state().items()}
        return {"optimizer": values}, arrays | {f"units.{k}": a for k, a in self.units.state().items()}

    def set_training_state(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        check_json(values, {"optimizer": {}}, "state")
        set_optimizer_state(self.optimizer, values["optimizer"], within(arrays, "optimizer."))
        self.replay.set_state(within(arrays, "replay."), self._kept())
        self.units.set_state(within(arrays, "units."))

    def _kept(self) -> dict[str, Expected]:
        """Returns what is kept of a position."""
        seen: Any = self.observation_space
        parts = seen.spaces if isinstance(seen, spaces.Dict) else {"observations": seen}
        needs = self.scorer.needs or tuple(parts)
        rows = {f"obs.{key}": Expected(part.shape or (), part.dtype) for key, part in parts.items() if key in needs}
        if self.scorer.memory:
            rows[f"obs.{MEMORY}"] = Expected((self.scorer.memory,), np.float32)
        each = (int(self.action_space.n),)
        tree = getattr(self.world, "tree_world", None)
        last = 2**62 if tree is None else tree.tree.size - 1
        return rows | {
            "policy": Expected(each, np.float32, 0.0, 1.01), "q": Expected(each, np.float32, -1e38, 1e38, nan=True),
            "target": Expected((), np.float32), "state": Expected((), np.int64, -1, last),
        }  # fmt: skip


class _Valueless:
    """A policy whose values are all zero."""

    memory = 0

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
