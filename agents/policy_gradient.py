"""What PPO, DAPO, VAPO and their relatives share: collect, weigh every step, take clipped gradient steps.

They differ in `collect` (which episodes), `weigh` (advantages and value targets) and in switches of the loss, which is
written out once, in `losses.loss`. Letters: N steps (tokens), E episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from treegym.agents.backward import Backward
from treegym.agents.base import Agent
from treegym.agents.fast.passes import Perceptron, fastest
from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import FIGURES, NOTHING, Lesson, Whole, episode_batches
from treegym.agents.losses import kl_estimate
from treegym.agents.play.exploring import InnerStarts
from treegym.agents.play.rollout import Collector, Trajectories, uncounted
from treegym.agents.policies.base import ChildScorer
from treegym.agents.schedules import as_schedule
from treegym.agents.schema import Expected, check_arrays, check_json
from treegym.agents.settings import Settings
from treegym.agents.state import array_of, expected_weights, optimizer_state, set_optimizer_state, within
from treegym.checks import is_number
from treegym.errors import LossIsNaN

__all__ = ["PolicyGradient", "adapted_beta"]

FEWEST_STEPS = 2048  # SB3's rollout: a budget that is nearly spent is overrun by so many rather than learned from badly


class PolicyGradient(Agent):
    """Collects, weighs, steps. See the module's docstring."""

    settings_class: ClassVar[type[Settings]] = GradientSettings
    settings: GradientSettings
    joint: ClassVar[bool] = True
    uses_critic: ClassVar[bool] = True

    def _setup_learning(self) -> None:
        s = self.settings
        self.lr_schedule = as_schedule(s.learning_rate, name="learning_rate")
        self.clip_schedule = as_schedule(s.clip_range, name="clip_range")
        self.entropy_schedule = as_schedule(s.ent_coef, name="ent_coef", signed=True)
        self.kl_beta = s.kl_coef
        self.processes.share(self.policy)
        self.reference: ChildScorer | None = self.scorer.frozen() if s.kl_coef else None
        if self.processes.sharded:
            self.scorer.shard()
        parameters = list(self.policy.parameters()) if self.uses_critic else self.scorer.actor_parameters()
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer = self.scorer.make_optimizer(
            trainable, lr=self.lr_schedule(1.0), eps=s.adam_eps, weight_decay=s.weight_decay
        )
        if self.processes.sharded:
            self.policy.set_training_mode(False)  # whole again, after the optimizer took the shards
        self._collector: Collector | None = None
        self._backward: Backward | None = None
        self._pass: Backward | None = None  # the one at work, during an update

    def _enter_world(self) -> None:
        self._collector = None

    def _let_go(self) -> None:
        if self._collector is not None:
            self._collector.on_step = uncounted

    @classmethod
    def suited(cls, policy: type) -> Mapping[str, Any]:
        known = {field.name for field in fields(cls.settings_class)}
        return {name: value for name, value in getattr(policy, "suits", {}).items() if name in known}

    # ------------------------------------------------------------------ the three things to differ in

    def collect(self, callback: BaseCallback) -> Trajectories:
        """Returns whole episodes, or (``n_steps``) as many steps in every lane."""
        collector = self.collector(callback)
        if self.settings.n_steps is not None:
            rollout = collector.pieces(self.settings.n_steps)
        else:
            rollout = collector.episodes(self.settings.n_episodes, enough=self.enough_steps())
        self.note_episodes(collector, rollout)
        return rollout

    def weigh(self, rollout: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        """Returns the advantage and the critic's target of every step, each ``[N] float32``."""
        raise NotImplementedError

    def nll_coef(self) -> float:
        """Returns the weight of the likelihood of correct episodes in the loss (VAPO)."""
        return 0.0

    # ------------------------------------------------------------------ the update

    def update(self, rollout: Trajectories) -> None:
        if self.kl_beta and self.reference is not None:
            rollout = self._charge_kl(rollout)
        lesson = self.lesson(rollout)
        self.take_steps(lesson)

    def lesson(self, rollout: Trajectories) -> Lesson:
        """Returns the valid steps of a rollout, weighed."""
        advantages, targets = self.weigh(rollout)
        correct = np.repeat(np.nan_to_num(rollout.correct) > 0.5, rollout.lengths)
        reference = self._reference_log_probs(rollout) if self.kl_beta else np.zeros(rollout.steps, np.float32)
        length = np.repeat(rollout.lengths, rollout.lengths).astype(np.float32)
        lesson = Lesson(
            dict(rollout.rows), rollout.actions, rollout.log_probs, advantages, targets, rollout.values, reference,
            correct, length, rollout.lengths,
        )  # fmt: skip
        if rollout.valid.all():
            return lesson
        keep = np.flatnonzero(rollout.valid)
        lengths = np.add.reduceat(rollout.valid.astype(np.int64), rollout.starts)
        return lesson.part(keep)._replace(lengths=lengths[lengths > 0])

    def take_steps(self, lesson: Lesson) -> None:
        """Takes the gradient steps of one rollout."""
        s = self.settings
        if not self.processes.any(len(lesson.actions) > 0):
            return  # every group was uninformative or every episode filtered: nothing to learn from
        rate = self.lr_schedule(self._current_progress_remaining)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._pass = backward = self.backward()
        lesson = backward.take(lesson)
        self.policy.set_training_mode(True)
        logged: list[dict[str, float]] = []
        try:
            for _ in range(s.n_epochs):
                if not self._epoch(backward, lesson, logged):
                    break
                self._n_updates += 1
        finally:
            self._pass = None
        backward.finish()
        self.policy.set_training_mode(False)
        for name in logged[0] if logged else ():
            self.logger.record(f"train/{name}", float(np.mean([figures[name] for figures in logged])))
        self.logger.record("train/learning_rate", rate)

    def _epoch(self, backward: Backward, lesson: Lesson, logged: list[dict[str, float]]) -> bool:
        """Takes the gradient steps of one pass over a lesson; returns False where the policy has moved far enough."""
        s = self.settings
        for batch in self.processes.in_step(self.minibatches(lesson)):
            index, lengths = NOTHING if batch is None else batch
            part = lesson.part(index)._replace(lengths=lengths)
            if s.normalize_advantage and (len(index) > 1 or not self.processes.alone):
                part = part._replace(advantages=self.processes.standardised(part.advantages))
            figures = self.gradients(part)
            if not np.isfinite(figures["policy_loss"] + figures["value_loss"] + figures["entropy"]):
                raise LossIsNaN(
                    f"batch {len(logged) + 1} of update {self.iteration + 1} (after {self.num_timesteps} steps): "
                    "the loss is not a finite number; the weights are those from before it, and a lower "
                    "learning_rate may help"
                )
            if s.target_kl is not None and figures["approx_kl"] > 1.5 * s.target_kl:
                return False
            backward.step()
            logged.append(figures)
        return True

    def backward(self) -> Backward:
        """Returns what gradients come from: the quickest pass that fits, or autograd."""
        args = (self.scorer, self.optimizer, self.settings, self.processes)
        kind = fastest(*args, critic=self.uses_critic)
        if type(self._backward) is not kind or not self._backward.bound():
            self._backward = kind(*args, critic=self.uses_critic)
            self.scorer.fast = self._backward if isinstance(self._backward, Perceptron) else None
        return self._backward

    def gradients(self, part: Lesson) -> dict[str, float]:
        """Accumulates the gradients of one update batch, micro-batch by micro-batch; returns figures to log."""
        backward = self._pass
        if backward is None:  # outside of an update
            backward = self.backward()
            part = backward.take(part)
        whole = self.whole(part)
        backward.clear()
        if self.settings.micro_batch is None and self.processes.alone:
            return backward(part, whole, self.kl_beta)
        sums = dict.fromkeys(FIGURES, 0.0)
        for piece in self.processes.in_step(self._micro_batches(part)):
            if piece is None:
                self.scorer.idle()
                continue
            for name, value in backward(piece, whole, self.kl_beta).items():
                sums[name] += value
        self.processes.sum_gradients(self.optimizer.param_groups[0]["params"])
        return dict(zip(sums, self.processes.totals(*sums.values()), strict=True))

    def whole(self, part: Lesson) -> Whole:
        """Returns what normalises the loss of one update batch."""
        low = self.clip_schedule(self._current_progress_remaining)
        high = self.settings.clip_range_high
        tokens, episodes, correct_tokens = self.processes.totals(
            len(part.actions), float((1.0 / part.length).sum()), int(part.correct.sum())
        )
        return Whole(
            tokens=int(tokens),
            episodes=episodes,
            correct_tokens=int(correct_tokens),
            clip_low=low,
            clip_high=low if high is None else high,
            ent_coef=self.entropy_schedule(self._current_progress_remaining),
            nll_coef=self.nll_coef(),
        )

    def minibatches(self, lesson: Lesson) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the steps of each update batch in random order, or (always for sequence policies) whole episodes."""
        if self.scorer.unit == "episode" or self.settings.batches == "episodes":
            yield from episode_batches(lesson.lengths, self.settings.batch_size, self.rng)
            return
        order = self.rng.permutation(len(lesson.actions))
        for first in range(0, len(order), self.settings.batch_size):
            yield order[first : first + self.settings.batch_size], lesson.lengths

    def _micro_batches(self, part: Lesson) -> Iterator[Lesson]:
        size = self.settings.micro_batch
        if not len(part.actions):
            return
        if size is None or size >= len(part.actions):
            yield part
        elif self.scorer.unit == "episode":
            for index, lengths in episode_batches(part.lengths, size, None):
                yield part.part(index)._replace(lengths=lengths)
        else:
            for first in range(0, len(part.actions), size):
                yield part.part(np.arange(first, min(first + size, len(part.actions))))

    # ------------------------------------------------------------------ the reference policy

    def _reference_log_probs(self, rollout: Trajectories) -> np.ndarray:
        assert self.reference is not None
        if not rollout.steps:
            return np.zeros(0, np.float32)
        with torch.no_grad():
            judged = self.reference.evaluate(
                self.reference.tensors(rollout.rows),
                torch.as_tensor(rollout.actions, device=self.device),
                with_value=False,
                episode_lengths=rollout.lengths if self.reference.unit == "episode" else None,
            )
        return judged.log_prob.cpu().numpy()

    def _charge_kl(self, rollout: Trajectories) -> Trajectories:
        """Adds -beta KL_t to each reward if so set, and adapts beta towards the target KL."""
        s = self.settings
        own = torch.from_numpy(rollout.log_probs)
        reference = torch.from_numpy(self._reference_log_probs(rollout))
        kl = kl_estimate(own, reference, kind=s.kl_estimator).numpy()
        mean, (steps,) = self.processes.mean(kl), self.processes.totals(rollout.steps)
        self.logger.record("train/kl_to_reference", mean)
        if s.kl_in == "reward":
            rollout = rollout.with_(rewards=rollout.rewards - np.float32(self.kl_beta) * kl)
        if s.kl_target is not None:
            self.kl_beta = adapted_beta(self.kl_beta, mean, target=s.kl_target, steps=int(steps), horizon=s.kl_horizon)
            self.logger.record("train/kl_coef", self.kl_beta)
        return rollout

    # ------------------------------------------------------------------ helpers and state

    def enough_steps(self) -> int:
        """Returns after how many steps a rollout begins no further episodes: what is set, or left of the budget."""
        return min(self.settings.rollout_steps, self.steps_left())

    def steps_left(self) -> int:
        """Returns how many steps of the budget are left to this process; never fewer than an update can learn from."""
        left = -(-(self._total_timesteps - self.num_timesteps) // self.processes.count)
        return max(left, FEWEST_STEPS)

    def collector(self, callback: BaseCallback) -> Collector:
        assert self.world is not None
        self.backward()  # from the first step on: a resumed run must round as the first one did
        if self._collector is None:
            self._collector = Collector(
                self.world, self.scorer, self.rng, with_value=self.uses_critic, on_step=self.stepper(callback),
                exploring_starts=self.settings.exploring_starts if InnerStarts.known(self.world) else 0.0,
            )  # fmt: skip
        self._collector.policy, self._collector.on_step = self.scorer, self.stepper(callback)
        return self._collector

    def training_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        values, arrays = optimizer_state(self.optimizer)
        state: dict[str, Any] = {"optimizer": values, "kl_beta": self.kl_beta}
        arrays = {f"optimizer.{key}": array for key, array in arrays.items()}
        if self.reference is not None:
            arrays |= {f"reference.{key}": array_of(t) for key, t in self.reference.state_dict().items()}
        if self._collector is not None and self._collector.running and self.world is not None:
            world = self.world.state()
            if world:
                arrays |= {f"world.{key}": array for key, array in world.items()}
                arrays |= {f"lanes.{key}": array for key, array in self._collector.position().items()}
        return state, arrays

    def set_training_state(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        check_json(values, {"optimizer": {}, "kl_beta": lambda beta: is_number(beta) and beta >= 0}, "state")
        set_optimizer_state(self.optimizer, values["optimizer"], within(arrays, "optimizer."))
        if self.reference is not None:
            self._set_reference(within(arrays, "reference."))
            self.kl_beta = float(values["kl_beta"]) or self.kl_beta
        lanes = within(arrays, "lanes.")
        if not lanes:
            return
        count = (len(lanes.get("length", ())),)
        check_arrays(
            lanes, {"return": Expected(count, np.float64), "length": Expected(count, np.int64, 0, 2**31)}, "lanes"
        )
        if self.world is not None and count == (self.world.num_envs,):
            self.world.set_state(within(arrays, "world."))
            collector = Collector(self.world, self.scorer, self.rng, with_value=self.uses_critic, on_step=uncounted)
            collector.set_position(lanes)
            self._collector = collector

    def _set_reference(self, weights: Mapping[str, np.ndarray]) -> None:
        """Takes up the reference of a checkpoint; one made without a KL is gone on from with its own policy as that."""
        assert self.reference is not None
        if not weights:
            self.reference = self.scorer.frozen()
            return
        check_arrays(weights, expected_weights(self.reference), "reference")
        self.reference.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in weights.items()})


def adapted_beta(beta: float, kl: float, *, target: float, steps: int, horizon: int) -> float:
    """Returns beta x (1 + clip(KL/target - 1, -0.2, 0.2) * n/horizon) (https://arxiv.org/abs/1909.08593)."""
    return beta * (1.0 + float(np.clip(kl / target - 1.0, -0.2, 0.2)) * steps / horizon)
