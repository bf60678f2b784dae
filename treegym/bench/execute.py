"""One run: an agent learns within its budget and is evaluated along the way.

Called in a worker process. The result is the summary that is written to ``runs/ID.json``; everything in it but the
times and the provenance follows from the job alone.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from treegym.agents.registry import AGENTS, is_ours, make_agent, policy_first
from treegym.bench.arena import Arena, make_batch
from treegym.bench.episodes import Episodes, TrainingEpisodes, write_episodes, write_training
from treegym.bench.meter import BudgetSpent, Meter, follow
from treegym.bench.provenance import provenance
from treegym.bench.recording import Recorder
from treegym.bench.suite import FORMAT, Job
from treegym.errors import ConfigError
from treegym.files import atomic_write
from treegym.registration import find_spec, has_native_batch

__all__ = ["execute", "final_of", "summary_of"]

_UNLIMITED = 2**40  # environment steps that a budget in other units never reaches
_GROUPS = "rollout/groups"  # what group-sampling agents log under
_COLUMNS = ("return", "correct", "true", "proxy", "length", "regret")


class _Metered(VectorWrapper):
    """Counts and records what an agent without callbacks does, and ends its learning when the budget is spent."""

    def __init__(self, env: VectorEnv, meter: Meter, recorder: Recorder) -> None:
        super().__init__(env)
        self.meter, self.recorder = meter, recorder
        self._resting = np.zeros(env.num_envs, np.bool_)
        self._mode = env.metadata.get("autoreset_mode")

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, for schedules: 0 at first, 1 at the end."""
        return min(1.0, self.meter.spent)

    def reset(self, **where: Any) -> tuple[Any, dict[str, Any]]:
        self.recorder.begun(np.ones(self.num_envs, np.bool_))
        self._resting[:] = False
        return self.env.reset(**where)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        if not self.meter.tick():
            raise BudgetSpent
        observation, reward, terminated, truncated, info = self.env.step(actions)
        done = np.asarray(terminated) | np.asarray(truncated)
        # In next-step mode the step after an episode's end only resets; nobody chose an action there.
        active = ~self._resting
        last = info.get("final_info", info) if self._mode is AutoresetMode.SAME_STEP else info
        self.recorder.stepped(active, reward, done, last.get("is_success"), last)
        self.meter.env_steps, self.meter.judge_calls = self.recorder.env_steps, self.recorder.judge_calls
        self.meter.ended = self.recorder.ended
        if self._mode is AutoresetMode.NEXT_STEP:
            self._resting = done
        return observation, reward, terminated, truncated, info


def execute(job: Job, *, out: Path) -> dict[str, Any]:
    """Runs a job and writes its episodes and its summary; returns the summary."""
    began = time.perf_counter()
    arena = Arena(job.env, split=job.split, episodes=job.episodes)
    evaluated: dict[int, Episodes] = {}
    curve: list[dict[str, Any]] = []

    def evaluate(number: int) -> None:
        costs = meter.costs() | ({} if number else {"cpu_seconds": 0.0})  # making the agent is not charged
        evaluated[number] = arena.evaluate(agent)
        curve.append({"checkpoint": number, **_rounded(costs), **summary_of(evaluated[number], job.env.metric)})

    meter = Meter(job.budget, job.checkpoints, evaluate)
    agent, learn, recorder = _contestant(job, meter)
    if callable(watch := getattr(agent, "watch", None)):
        watch(arena.batch)  # planners look where the environment stands that they are asked about
    if learn is None:
        meter.forward_passes = meter.verdicts = 0
        meter.start()
        meter.checkpoint(0)
        costs = meter.costs() | {"cpu_seconds": 0.0}
    else:
        meter.checkpoint(0)
        meter.start()
        passes = meter.evaluation_passes
        learn()
        costs = meter.costs()
        meter.checkpoint(job.checkpoints)
        meter.evaluation_passes -= passes
    final = evaluated[max(evaluated)]
    evaluation_cpu = meter.evaluation_cpu
    training = None
    seen: TrainingEpisodes | None = None
    if recorder is not None:
        seen = recorder.episodes()
        digest = write_training(out / "runs" / f"{job.id}.training.jsonl.gz", seen)
        training = {
            "sha256": digest, "count": len(seen), "env_steps": recorder.env_steps,
            "exploring_starts": seen.exploring_starts(arena.tree),
        }  # fmt: skip
    digest = write_episodes(out / "runs" / f"{job.id}.jsonl.gz", evaluated)
    summary = {
        "format": FORMAT,
        "fingerprint": job.fingerprint,
        "suite": job.suite,
        "env": job.env.name,
        "agent": job.agent.name,
        "seed": job.seed,
        "job": job.as_json(),
        "hyperparameters": _hyperparameters(agent, job),
        "cost": {
            **_rounded(costs),
            "episodes": 0 if training is None else training["count"],
            "simulations": meter.simulations,
            "judge_calls": meter.judge_calls,
            "discarded_groups": meter.discarded_groups,
            "updates": getattr(agent, "_n_updates", None) if learn is not None else 0,
            "wall_seconds": round(time.perf_counter() - began, 3),
            "evaluation": {
                "cpu_seconds": round(evaluation_cpu, 3),
                "forward_passes": meter.evaluation_passes,
                "verdicts": meter.evaluation_verdicts,
                "episodes": sum(len(episodes) for episodes in evaluated.values()),
            },
        },
        "world": arena.digest(),
        "samples": arena.samples(final),
        "reference": {key: round(value, 9) for key, value in arena.references().items()},
        "curve": curve,
        "final": final_of(final, job.env.metric),
        "episodes": {"sha256": digest, "count": sum(len(episodes) for episodes in evaluated.values())},
        "training": training,
        "failed_rewards": {
            "training": 0 if seen is None else seen.with_failures,
            "evaluation": sum(episodes.with_failures for episodes in evaluated.values()),
        },
        "provenance": provenance(),
    }
    atomic_write(out / "runs" / f"{job.id}.json", json.dumps(summary, allow_nan=False) + "\n")
    arena.close()
    return summary


def _contestant(job: Job, meter: Meter) -> tuple[Any, Callable[[], None] | None, Recorder | None]:
    """Returns the agent, and what makes it learn within its budget and who records it (None if it does not learn)."""
    kwargs = _kwargs(job)
    found = AGENTS.find(job.agent.agent)
    ours, sb3 = is_ours(found), policy_first(found)
    disabled = {"autoreset_mode": "Disabled"} if (ours or sb3) and has_native_batch(find_spec(job.env.id)) else {}
    env: Any = make_batch(job.env.id, job.env.num_envs, {**job.env.kwargs, **disabled})
    recorder = Recorder(job.env, env.num_envs, getattr(env.unwrapped, "lanes", None))
    if sb3 and not ours:
        env = _vec_env(env)
    elif not ours:
        env = _Metered(env, meter, recorder)
    try:
        agent = make_agent(job.agent.agent, env, seed=job.seed, **kwargs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"agent {job.agent.agent!r} cannot be made with {kwargs}: {error}") from error
    counted = follow(agent, meter)
    if not callable(getattr(agent, "learn", None)) or getattr(agent, "learns", True) is False:
        return agent, None, None
    steps = _steps(job.budget)
    if not counted:
        meter.forward_passes = None
    if not (ours or sb3):
        return agent, lambda: _learn_by_stepping(agent, meter, steps), recorder
    world = agent.world if ours else env.world  # our agents may have made a batch of another size
    recorder = Recorder(job.env, world.num_envs, getattr(world, "lanes", None))
    recorder.observe(world)
    if set(job.budget) != {"env_steps"}:
        _follow_budget(agent, meter)
    return agent, lambda: _learn_with_callback(agent, meter, recorder, steps), recorder


def _steps(budget: Mapping[str, float]) -> int:
    """Returns the environment steps that a run takes at most: each costs a forward pass at least."""
    limits = [budget[unit] for unit in ("env_steps", "forward_passes") if unit in budget]
    return int(min(limits)) if limits else _UNLIMITED


def _follow_budget(agent: Any, meter: Meter) -> None:
    """Lets schedules follow the share of the budget that is spent, whichever limit binds, instead of steps alone."""

    def update(num_timesteps: int, total_timesteps: int) -> None:
        agent._current_progress_remaining = max(0.0, 1.0 - meter.spent)

    agent._update_current_progress_remaining = update  # the hook that SB3 calls before each use of a schedule


def _kwargs(job: Job) -> dict[str, Any]:
    return {**job.agent.kwargs, **job.agent.per_env.get(job.env.name, {})}


def _vec_env(env: VectorEnv) -> Any:
    from treegym.agents.play.vec_env import WorldVecEnv
    from treegym.agents.play.worlds import make_world

    return WorldVecEnv(make_world(env))


def _learn_with_callback(agent: Any, meter: Meter, recorder: Recorder, steps: int) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Checkpoints(BaseCallback):
        def _on_step(self) -> bool:
            _read(agent, meter, recorder)
            return meter.tick()

        def _on_rollout_end(self) -> None:
            said = self.logger.name_to_value  # dynamic sampling says how many groups it drew and how many it kept
            meter.discarded_groups += int(said.get(f"{_GROUPS}_sampled", 0) - said.get(f"{_GROUPS}_kept", 0))

    agent.learn(steps, callback=Checkpoints())
    _read(agent, meter, recorder)
    meter.tick()  # what came due in the last update


def _learn_by_stepping(agent: Any, meter: Meter, steps: int) -> None:
    with contextlib.suppress(BudgetSpent):
        agent.learn(steps)
    if isinstance(passes := getattr(agent, "forward_passes", None), int):
        meter.forward_passes = passes
    meter.tick()


def _read(agent: Any, meter: Meter, recorder: Recorder) -> None:
    """Takes over the counts that others keep; agents know about cached evaluations."""
    meter.env_steps, meter.judge_calls = int(agent.num_timesteps), recorder.judge_calls
    meter.ended = recorder.ended
    if isinstance(passes := getattr(agent, "forward_passes", None), int):
        meter.forward_passes = passes


def summary_of(episodes: Episodes, metric: str) -> dict[str, Any]:
    """Returns the score and the mean of every column of an evaluation."""
    values: dict[str, Any] = {"score": _average(episodes.metric(metric))}
    return values | {name: _average(episodes.metric(name)) for name in _COLUMNS}


def final_of(episodes: Episodes, metric: str) -> dict[str, Any]:
    """Returns the summary of the last evaluation, by kind of task and prompt by prompt."""
    kinds = {}
    for kind in np.unique(episodes.kind):
        here = episodes.kind == kind
        kinds[str(kind)] = {
            "score": _average(episodes.metric(metric)[here]),
            "regret": _average(episodes.regret[here]),
            "length": _average(episodes.length[here]),
            "episodes": int(here.sum()),
        }
    scores = [round(float(value), 9) for value in episodes.metric(metric)]
    return {**summary_of(episodes, metric), "kinds": kinds, "prompts": episodes.prompt.tolist(), "scores": scores}


def _average(values: np.ndarray) -> float | None:
    """Returns the mean, rounded so that it does not depend on the order of summation; None where it is unknown."""
    mean = math.fsum(values.tolist()) / len(values)
    return round(mean, 9) if math.isfinite(mean) else None


def _rounded(costs: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in costs.items()}


def _hyperparameters(agent: Any, job: Job) -> dict[str, Any]:
    """Returns the settings an agent really ran with, defaults included: as it tells them, or as it was made."""
    describe = getattr(agent, "settings_dict", None)
    if callable(describe):
        values = describe()
    else:
        try:
            parameters = inspect.signature(AGENTS.find(job.agent.agent)).parameters.values()
        except (TypeError, ValueError):  # made by something that has no signature
            parameters = {}.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "seed"}
        values = {**defaults, **_kwargs(job)}
    return json.loads(json.dumps(values, default=str), parse_constant=str)
