"""How fast TokenTree steps: the native batch against copying the same bytes, and against other environments.

Times are CPU seconds of this one-threaded process, so that other work on the machine counts as little as can be.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from common import cpu_seconds, emit, interleaved, median_ratio, parse, table

import treegym  # noqa: F401 (registers the ids)

LANES = (64, 1024, 4096)
TREE = "synthetic:roots={roots},depth=10,branching=16,width=8,seed=0"


class SamplingEnv(gym.Env):
    """Has no world: observations are samples of its space, as in the trivial environments of Gymnasium's own tests."""

    def __init__(self, observation_space: gym.spaces.Dict, action_space: gym.spaces.Discrete) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, bool(self.np_random.random() < 0.15), False, {}


class TrivialEnv(SamplingEnv):
    """The least Python that honours the contract: fresh arrays of random numbers and an info with the usual keys."""

    def __init__(self, observation_space: gym.spaces.Dict, action_space: gym.spaces.Discrete) -> None:
        super().__init__(observation_space, action_space)
        box = observation_space["observations"]
        self._low, self._range = box.low, box.high - box.low  # type: ignore[attr-defined]

    def _seen(self) -> dict[str, np.ndarray]:
        return {
            "observations": self._low + self._range * self.np_random.random(len(self._low), dtype=np.float32),
            "action_mask": np.ones(int(self.action_space.n), np.int8),  # type: ignore[attr-defined]
        }

    def _info(self, seen: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            "action_mask": seen["action_mask"].copy(),
            "root": 0,
            "text": "",
            "is_success": False,
            "illegal_action": False,
            "reward_failed": False,
            "reward_terms": {"verifier": {"raw": 0.0, "weight": 1.0}},
            "vector_reward": np.zeros(1, np.float32),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        gym.Env.reset(self, seed=seed)
        seen = self._seen()
        return seen, self._info(seen)

    def step(self, action: Any) -> Any:
        seen = self._seen()
        return seen, float(self.np_random.random()), bool(self.np_random.random() < 0.15), False, self._info(seen)


def stepper(env: gym.vector.VectorEnv, steps: int, seed: int = 0) -> Callable[[], None]:
    """Returns work that takes so many steps with legal random actions drawn beforehand."""
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    actions = rng.integers(2, size=(64, env.num_envs))  # every fork of the tree has at least two children

    def work() -> None:
        for step in range(steps):
            env.step(actions[step % 64])

    return work


def copier(env: gym.vector.VectorEnv, steps: int) -> Callable[[], None]:
    """Returns work that copies as many observation bytes, into fresh memory, from sources as far apart."""
    seen, _ = env.reset(seed=0)
    sources = [{key: value.copy() for key, value in seen.items()} for _ in range(8)]

    def work() -> None:
        for step in range(steps):
            _ = {key: value.copy() for key, value in sources[step % 8].items()}

    return work


def single_stepper(env: gym.Env, steps: int) -> Callable[[], None]:
    env.reset(seed=0)

    def work() -> None:
        for _ in range(steps):
            *_, terminated, truncated, _ = env.step(0)
            if terminated or truncated:
                env.reset()

    return work


def main() -> None:
    args = parse(__doc__.splitlines()[0])
    tree = TREE.format(roots=150 if args.quick else 820)
    rounds = 5 if args.quick else 21
    figures: dict[str, float] = {}
    cells = []
    for lanes in LANES:
        env = gym.make_vec("TokenTree-v0", num_envs=lanes, tree=tree)
        steps = max(8, 400_000 // lanes // 8)
        times = interleaved({"step": stepper(env, steps), "copy": copier(env, steps)}, rounds=rounds, clock=cpu_seconds)
        speed = lanes * steps / statistics.median(times["step"])
        over = median_ratio(times["step"], times["copy"])
        figures[f"steps_per_s_{lanes}"] = speed
        if lanes > 64:
            figures[f"over_memcpy_{lanes}"] = over
        cells.append({"environment": "TokenTree native", "lanes": lanes, "steps/s": speed, "over memcpy": over})
    nodes = env.unwrapped.tree.size  # type: ignore[attr-defined]
    singles = gym.make("TokenTree-v0", tree=tree)
    for name, kind in (("TreeGymTrivial-v0", TrivialEnv), ("TreeGymSampling-v0", SamplingEnv)):
        spaces = {"observation_space": singles.observation_space, "action_space": singles.action_space}
        gym.register(name, kind, kwargs=spaces)
    steps = 1000 if args.quick else 4000
    work = {
        "TokenTree single": single_stepper(singles, steps),
        "trivial Dict env": single_stepper(gym.make("TreeGymTrivial-v0"), steps),
        "sampling Dict env": single_stepper(gym.make("TreeGymSampling-v0"), steps),
    }
    times = interleaved(work, rounds=rounds, clock=cpu_seconds)
    figures["single_vs_trivial"] = median_ratio(times["trivial Dict env"], times["TokenTree single"])
    figures["single_vs_sampling"] = median_ratio(times["sampling Dict env"], times["TokenTree single"])
    cells += [
        {"environment": name, "lanes": 1, "steps/s": steps / statistics.median(seconds), "over memcpy": ""}
        for name, seconds in times.items()
    ]
    cart = gym.make_vec("CartPole-v1", num_envs=1024)  # Gymnasium's own vectorised environment
    sync = gym.make_vec("TokenTree-v0", num_envs=16, tree=tree, vectorization_mode="sync")
    work = {"CartPole native": stepper(cart, 100), "TokenTree SyncVectorEnv": stepper(sync, 100)}
    times = interleaved(work, rounds=max(3, rounds // 3), clock=cpu_seconds)
    for (name, seconds), lanes in zip(times.items(), (1024, 16), strict=True):
        speed = 100 * lanes / statistics.median(seconds)
        cells.append({"environment": name, "lanes": lanes, "steps/s": speed, "over memcpy": ""})
    print(f"tree of {nodes:,} nodes, 16 children, features view, fresh observations at every step\n")
    print(table(cells))
    emit("env_steps", figures, cells)


if __name__ == "__main__":
    main()
