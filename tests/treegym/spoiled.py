"""TokenTree with one thing wrong at a time: what check_suite must find. A module of its own for other processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from treegym.envs.token_tree.env import TokenTreeEnv
from treegym.envs.token_tree.vector import TokenTreeVectorEnv

TREE = "synthetic:roots=40,depth=6,branching=5,width=4,seed=3"
_KEPT: dict[str, np.ndarray] = {}


class Spoiled(TokenTreeEnv):
    """TokenTree with one thing wrong, named by `spoil`."""

    def __init__(self, spoil: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spoil, self._steps = spoil, 0
        change = _MAKE.get(spoil)
        if change is not None:
            change(self)

    def reset(self, **kwargs: Any) -> Any:
        if self.spoil == "seed ignored":
            kwargs.pop("seed", None)
        return _OUTCOME.get(self.spoil, _as_is)(self, super().reset(**kwargs))

    def step(self, action: Any) -> Any:
        self._steps += 1
        illegal = action >= int(self.lanes.observe()["action_mask"].sum())
        if self.spoil == "illegal raises" and illegal:
            raise ValueError("not allowed")
        if self.spoil == "illegal moves" and illegal:
            outcome: Any = super().step(0)
            outcome[-1]["illegal_action"] = True
            return (outcome[0], -0.1, *outcome[2:])
        return _OUTCOME.get(self.spoil, _as_is)(self, super().step(action))

    def action_masks(self) -> np.ndarray:
        masks = super().action_masks()
        return masks.astype(np.int8) if self.spoil == "masks of int8" else masks

    def render(self) -> Any:
        drawn = super().render()
        return drawn[0] if self.spoil == "flat picture" and self.render_mode == "rgb_array" else drawn

    def close(self) -> None:
        if self.spoil == "closes once" and getattr(self, "_closed", False):
            raise RuntimeError("closed already")
        self._closed = True
        super().close()


def _as_is(env: Any, outcome: Any) -> Any:
    return outcome


def _in_info(name: str, value: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def change(env: Any, outcome: Any) -> Any:
        outcome[-1][name] = value(env, outcome)
        return outcome

    return change


def _in_step(place: int, value: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def change(env: Any, outcome: Any) -> Any:
        if len(outcome) < 5:
            return outcome
        return (*outcome[:place], value(outcome), *outcome[place + 1 :])

    return change


def _seen(value: Callable[[Any], float]) -> Callable[[Any, Any], Any]:
    def change(env: Any, outcome: Any) -> Any:
        outcome[0]["observations"][3] = value(env)
        return outcome

    return change


def _empty_mask(env: Any, outcome: Any) -> Any:
    outcome[0]["action_mask"][:] = 0
    return outcome


def _wide_mask(env: Any, outcome: Any) -> Any:
    outcome[0]["action_mask"] = outcome[0]["action_mask"].astype(np.int64)
    return outcome


def _without_success(env: Any, outcome: Any) -> Any:
    outcome[-1].pop("is_success")
    return outcome


def _reused_array(env: Any, outcome: Any) -> Any:
    kept = _KEPT.setdefault(f"{id(env)} {env._steps % 2}", outcome[0]["observations"])  # every second step's
    kept[:] = outcome[0]["observations"]
    return ({**outcome[0], "observations": kept}, *outcome[1:])


def _without_compute_reward(env: Any) -> None:
    env.compute_reward = None


def _start_at_one(env: Any) -> None:
    env.action_space = gym.spaces.Discrete(16, start=1)


def _nested_space(env: Any) -> None:
    env.observation_space = gym.spaces.Dict({**env.observation_space.spaces, "more": gym.spaces.Dict()})


def _unbounded_space(env: Any) -> None:
    size = env.layout.size
    parts = {**env.observation_space.spaces, "observations": gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)}
    env.observation_space = gym.spaces.Dict(parts)


def _no_fps(env: Any) -> None:
    env.metadata = {"render_modes": ["ansi", "rgb_array", "human"]}


_MAKE: dict[str, Callable[[Any], None]] = {
    "compute_reward": _without_compute_reward,
    "actions from 1": _start_at_one,
    "nested space": _nested_space,
    "no bounds": _unbounded_space,
    "no frame rate": _no_fps,
}
_OUTCOME: dict[str, Callable[[Any, Any], Any]] = {
    "shared mask": _in_info("action_mask", lambda env, outcome: outcome[0]["action_mask"]),
    "numpy reward": _in_step(1, lambda outcome: np.float64(outcome[1])),
    "numpy bool": _in_step(2, lambda outcome: np.bool_(outcome[2])),
    "infinite reward": _in_step(1, lambda outcome: float("inf")),
    "cut at once": _in_step(3, lambda outcome: not outcome[2]),
    "reserved key": _in_info("episode", lambda env, outcome: 1),
    "private key": _in_info("_mine", lambda env, outcome: 1),
    "changing type": _in_info("root", lambda env, outcome: 1 if len(outcome) == 5 else "one"),
    "changing type inside": _in_info("more", lambda env, outcome: {"a": 1 if len(outcome) == 5 else 1.0}),
    "changing shape": _in_info("more", lambda env, outcome: np.zeros(1 + len(outcome))),
    "wall clock": _in_info("noise", lambda env, outcome: float(np.random.default_rng().random())),
    "own randomness": _seen(lambda env: float(np.random.default_rng().random())),
    "out of bounds": _seen(lambda env: 1e9),
    "empty mask": _empty_mask,
    "wide mask": _wide_mask,
    "other mask in info": _in_info("action_mask", lambda env, outcome: 1 - outcome[0]["action_mask"]),
    "unflagged": _in_info("illegal_action", lambda env, outcome: False),
    "all flagged": _in_info("illegal_action", lambda env, outcome: len(outcome) == 5),
    "no success": _without_success,
    "wide vector": _in_info("vector_reward", lambda env, outcome: np.zeros(1)),
    "reused array": _reused_array,
}


class SpoiledBatch(TokenTreeVectorEnv):
    """The native batch with one thing wrong."""

    def __init__(self, num_envs: int = 1, *, spoil: str = "", **kwargs: Any) -> None:
        if spoil == "batch without limit":
            kwargs.pop("max_episode_steps", None)
        if spoil == "batch resets at once" and "autoreset_mode" not in kwargs:
            kwargs["autoreset_mode"] = "SameStep"
        super().__init__(num_envs, **kwargs)
        self.spoil = spoil
        self._buffer: Any = None

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if self.spoil == "batch resets all":
            options = None
        return super().reset(
            seed=1 if self.spoil == "batch seeds otherwise" and seed is not None else seed, options=options
        )

    def step(self, actions: Any) -> Any:
        seen, rewards, terminated, truncated, info = super().step(actions)
        if self.spoil == "batch pays otherwise":
            rewards = rewards + 1.0
        if self.spoil == "batch reuses memory":
            self._buffer = seen["observations"] if self._buffer is None else self._buffer
            self._buffer[:] = seen["observations"]
            seen["observations"] = self._buffer
        if self.spoil == "batch without final":
            info.pop("final_info", None)
        if self.spoil == "batch without masks":
            info.pop("_root")
        return seen, rewards, terminated, truncated, info
