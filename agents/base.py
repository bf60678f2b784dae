"""`Agent`: what all learners share, on SB3's `BaseAlgorithm`; used as one uses Stable-Baselines3.

    model = PPO("ChildPolicy", env, seed=0, verbose=1)
    model.learn(100_000)
    model.save("run.zip")
    action, state = model.predict(obs, deterministic=True)

A learner adds its settings (a frozen dataclass whose fields are its switches), `collect` and `update`.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common import utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecEnv

from treegym.agents import checkpoint
from treegym.agents.callbacks import StepsBar
from treegym.agents.costs import Costs
from treegym.agents.play.acting import Acting
from treegym.agents.play.rollout import Collector, Stopped, Trajectories
from treegym.agents.play.vec_env import WorldVecEnv
from treegym.agents.play.world import PlayStep, World
from treegym.agents.play.worlds import make_world
from treegym.agents.policies import policy_class, policy_path
from treegym.agents.policies.base import ChildScorer
from treegym.agents.processes import Processes, launched
from treegym.agents.settings import Settings
from treegym.errors import ConfigError

__all__ = ["Agent"]


class Agent(Acting, BaseAlgorithm):
    """The base of every learner.

    Args:
        policy: a name (`treegym.agents.policies.POLICIES`), an import path or a class.
        env: an id, a Gymnasium environment (single or vector), an SB3 `VecEnv`; None only to predict after `load`.
        policy_kwargs: what the policy's constructor takes beyond the spaces; JSON values, so that a checkpoint can
            hold them.
        seed: the seed of everything random; None draws one.
        verbose: 0 silent, 1 a table of progress.
        device: where the policy's network lives.
        tensorboard_log: a directory for TensorBoard, or None.
        stats_window_size: over how many episodes progress is averaged.
        **switches: the fields of `settings_class`; those not given are what suits the policy, or the field's default.
    """

    settings_class: ClassVar[type[Settings]] = Settings
    papers: ClassVar[Mapping[str, Any]]  # the switches of the paper that names it, where there is a preset
    joint: ClassVar[bool] = False  # whether several processes can learn together
    settings: Any
    policy_kwargs: dict[str, Any]
    num_timesteps: int
    _current_progress_remaining: float
    ep_info_buffer: deque[dict[str, float]] | None
    ep_success_buffer: deque[float] | None

    def __init__(
        self,
        policy: str | type,
        env: Any,
        *,
        policy_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        tensorboard_log: str | None = None,
        stats_window_size: int = 100,
        _spaces: tuple[Any, Any] | None = None,
        **switches: Any,
    ) -> None:
        self.settings = self.settings_class.of(type(self).__name__, {**self.suited(policy_class(policy)), **switches})
        self.policy_name = policy if isinstance(policy, str) else policy_path(policy)
        self.processes = Processes(join=self.joint)
        world = None if env is None else self.world_of(env, self.settings)
        super().__init__(
            policy_class(policy),
            None if world is None else WorldVecEnv(world),
            learning_rate=0.0,  # SB3's slot; the learning rate is one of the settings
            policy_kwargs=self.suited_network(policy_class(policy)) if policy_kwargs is None else policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=None if self.processes.rank else tensorboard_log,
            verbose=0 if self.processes.rank else verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        if world is None:
            if _spaces is None:
                raise ConfigError("an agent needs an environment; only a loaded checkpoint can do without one")
            self.observation_space, self.action_space = _spaces
            self.n_envs = 1
        self.world: World | None = world
        self.stands_in(env, self.env)  # what the user steps, perhaps
        self.costs = Costs()
        self.rng = np.random.default_rng(seed)
        self.iteration = 0
        self.collect_elsewhere: Callable[[BaseCallback], Any] | None = None  # goes before `collect`
        self._stop_training = False
        self._setup_model()
        self.carry(self.costs)
        self.rng = self.processes.generator(self.rng)

    @classmethod
    def paper(cls, policy: str | type, env: Any, **switches: Any) -> Self:
        """Returns this agent with the switches of the paper that names it, where `switches` do not say otherwise.

        What still differs is listed in docs/algorithms.md.
        """
        if "papers" not in vars(cls):  # a relative's paper is another one
            raise ConfigError(f"{cls.__name__} has no preset of a paper; its defaults are described in its docstring")
        return cls(policy, env, **{**cls.papers, **switches})

    @classmethod
    def suited(cls, policy: type) -> Mapping[str, Any]:
        """Returns the switches that a policy should be learned with unless the user says otherwise."""
        return {}

    @classmethod
    def suited_network(cls, policy: type) -> dict[str, Any] | None:
        """Returns the arguments that a policy should be made with unless the user gives any."""
        return None

    @classmethod
    def world_of(cls, env: Any, settings: Any) -> World:
        """Returns an environment as the world that an agent of these settings plays in."""
        return make_world(env, num_envs=settings.n_envs)

    def carry(self, costs: Costs) -> None:
        super().carry(costs)
        self.scorer.costs = costs

    # ------------------------------------------------------------------ building

    @classmethod
    def _wrap_env(cls, env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Answers SB3: any environment becomes a world seen as a `VecEnv`."""
        return env if isinstance(env, WorldVecEnv) else WorldVecEnv(make_world(env))

    def _setup_model(self) -> None:
        if not isinstance(self.policy_kwargs, dict):
            raise ConfigError(f"policy_kwargs is {self.policy_kwargs!r}; it must be a dictionary of named values")
        kwargs = dict(self.policy_kwargs)
        if getattr(self.policy_class, "layout_needed", False) and "layout" not in kwargs:
            kwargs["layout"] = self._layout()
            self.policy_kwargs = kwargs
        # Torch's global generator is left as it was: the seed enters through `self.rng` alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.rng.integers(2**31)))
            policy = self.policy_class(self.observation_space, self.action_space, lambda _: 0.0, **kwargs)
        if self.world is not None:
            policy.check_env(self.world.env)
        self.policy = policy.to(self.device)
        self.policy.set_training_mode(False)
        self._setup_learning()

    def _layout(self) -> dict[str, Any]:
        layout = getattr(getattr(self.world.env, "unwrapped", None), "layout", None) if self.world is not None else None
        if layout is None:
            raise ConfigError(
                f"{self.policy_name} needs to know where each child's features are (env.unwrapped.layout, an "
                "ObservationLayout), and this environment does not say; use MlpPolicy or MultiInputPolicy"
            )
        return {"num_children": layout.num_children, "state": list(layout.state), "child": list(layout.child)}

    def _setup_learning(self) -> None:
        """Makes optimizer and buffers; called once the policy exists."""

    @property
    def scorer(self) -> ChildScorer:
        """The policy, as what it is here."""
        return self.policy  # type: ignore[return-value]

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Goes on in another environment of the same spaces, with any number of lanes."""
        world = self.world_of(env, self.settings)
        self._check_spaces(world)
        self.world = world
        self.env = WorldVecEnv(world)
        self.n_envs = world.num_envs
        self.stands_in(env, self.env)
        self._enter_world()

    def _check_spaces(self, world: World) -> None:
        for what, ours, theirs in (
            ("observation", self.observation_space, world.observation_space),
            ("action", self.action_space, world.action_space),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"this agent was made for another environment: its {what} space is {_short(ours)}, "
                    f"the environment's is {_short(theirs)}"
                )

    def _enter_world(self) -> None:
        """Makes what depends on the world; called when it changes."""

    # ------------------------------------------------------------------ learning

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Learns for at least `total_timesteps` environment steps; arguments as in Stable-Baselines3.

        With ``reset_num_timesteps=False`` these come on top of those taken already. Of several processes, the steps of
        all count.
        """
        if not self.joint and launched() > 1:
            raise ConfigError(
                f"{launched()} processes were launched (WORLD_SIZE), but {type(self).__name__} learns in one; start it "
                "without accelerate or torchrun, or use PPO, DAPO or VAPO"
            )
        if self.world is None:
            raise ConfigError("there is no environment to learn in: call set_env, or load the checkpoint with env=...")
        total_timesteps, callbacks = self._begin(
            total_timesteps, callback, tb_log_name, reset_num_timesteps, progress_bar
        )
        # All but the callbacks: one that held itself would keep the agent in memory until garbage is next collected.
        told = {name: value for name, value in locals().items() if not name.startswith("callback")}
        callbacks.on_training_start(told, globals())
        try:
            while self.num_timesteps < total_timesteps:
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                callbacks.on_rollout_start()
                before = self.num_timesteps
                try:
                    rollout = (self.collect_elsewhere or self.collect)(callbacks)
                except Stopped:
                    rollout = None
                if self.processes.any(rollout is None):
                    break
                self.num_timesteps = before + int(self.processes.totals(self.num_timesteps - before)[0])
                callbacks.update_locals({"rollout": rollout})
                callbacks.on_rollout_end()
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                self.update(rollout)
                self.iteration += 1
                if log_interval and self.iteration % log_interval == 0:
                    self.dump_logs()
        finally:
            self._let_go()
        callbacks.on_training_end()
        return self

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """Tells schedules how much is left; a rollout that ran past the budget counts as half of what it began with.

        Left to itself a falling rate would be negative there, and one cut at nothing would waste a short run's only
        rollout.
        """
        left = 1.0 - num_timesteps / total_timesteps
        self._current_progress_remaining = left if left > 0.0 else self._current_progress_remaining / 2

    def _let_go(self) -> None:
        """Drops what holds on to the callbacks of a `learn` that is over, and through them to this agent."""

    def collect(self, callback: BaseCallback) -> Any:
        """Returns what the next update learns from."""
        raise NotImplementedError

    def update(self, rollout: Any) -> None:
        """Learns from what `collect` returned."""
        raise NotImplementedError

    def stepper(self, callback: BaseCallback) -> Callable[[int, PlayStep], None]:
        """Returns a function that counts steps and calls the callbacks, for a `Collector`."""

        def on_step(active: int, outcome: PlayStep) -> None:
            self.num_timesteps += active
            done = outcome.terminated | outcome.truncated
            callback.update_locals({"rewards": outcome.reward, "dones": done, "infos": outcome.info, "self": self})
            if not callback.on_step():
                raise Stopped

        return on_step

    def note_episodes(self, collector: Collector, rollout: Trajectories) -> None:
        """Keeps the returns and lengths of finished episodes for the log, as SB3's Monitor would."""
        assert self.ep_info_buffer is not None
        assert self.ep_success_buffer is not None
        self.ep_info_buffer.extend({"r": total, "l": length, "t": 0.0} for total, length in collector.finished)
        self._episode_num += len(collector.finished)
        collector.finished.clear()
        known = rollout.correct[~np.isnan(rollout.correct)]
        self.ep_success_buffer.extend(known.tolist())

    def dump_logs(self) -> None:
        """Writes a line of progress to SB3's logger."""
        assert self.ep_info_buffer is not None
        assert self.ep_success_buffer is not None
        seconds = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/iterations", self.iteration, exclude="tensorboard")
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / seconds))
        self.logger.record("time/time_elapsed", int(seconds), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", float(np.mean([info["r"] for info in self.ep_info_buffer])))
            self.logger.record("rollout/ep_len_mean", float(np.mean([info["l"] for info in self.ep_info_buffer])))
        if self.ep_success_buffer:
            self.logger.record("rollout/success_rate", float(np.mean(self.ep_success_buffer)))
        self.logger.dump(step=self.num_timesteps)

    def _begin(
        self, steps: int, callback: Any, tb_log_name: str | None, reset: bool, progress_bar: bool
    ) -> tuple[int, BaseCallback]:
        """Does what SB3's `_setup_learn` does, but leaves the environment where it stands."""
        self.start_time = time.time_ns()
        if self.ep_info_buffer is None or reset:
            self.ep_info_buffer = deque(maxlen=self._stats_window_size)
            self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        if reset:
            self.num_timesteps = 0
            self._episode_num = 0
        total = steps if reset else steps + self.num_timesteps
        self._total_timesteps = total
        self._num_timesteps_at_start = self.num_timesteps
        if not self._custom_logger:
            name = tb_log_name or type(self).__name__
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, name, reset)
        callbacks = self._init_callback(callback)
        if progress_bar:
            callbacks = CallbackList([callbacks, StepsBar()])
            callbacks.init_callback(self)
        return total, callbacks

    # ------------------------------------------------------------------ acting

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        """Returns an action for each row ``[B] int64``."""
        if deterministic:
            return self.scorer.best(rows)
        uniform = self.rng.random(len(next(iter(rows.values()))))
        return self.scorer.act(rows, uniform, with_value=False)[0]

    # ------------------------------------------------------------------ checkpoints

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Writes the whole state of training as a zip of JSON and safetensors, atomically."""
        checkpoint.save(self, path)
        if self.processes.sharded:
            self.policy.set_training_mode(False)  # weights were taken as shards; from here on they are whole again

    @classmethod
    def load(cls, path: str | Path, env: Any = None, device: str | torch.device = "auto", **kwargs: Any) -> Self:  # type: ignore[override]
        """Reads what `save` wrote; executes nothing from the file.

        Args:
            path: the checkpoint.
            env: where to go on; None is enough to predict.
            device: where the network shall live.
            **kwargs: settings to override, ``verbose``, ``tensorboard_log``, and ``policy`` where the policy is a class
                of your own: what a file names is imported only if it is registered or named here.
        """
        return checkpoint.load(cls, path, env=env, device=device, overrides=kwargs)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        return {"policy": self.policy.state_dict()}

    def training_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns what a learner must remember beyond the policy's weights: JSON values, and arrays."""
        return {}, {}

    def set_training_state(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Takes back what `training_state` returned."""

    def settings_dict(self) -> dict[str, Any]:
        """Returns the switches as JSON values; functions cannot be written and are left out."""
        return {name: value for name, value in asdict(self.settings).items() if not callable(value)}


def _short(space: Any) -> str:
    text = str(space)
    return text if len(text) <= 160 else text[:157] + "..."
