"""check_suite: holds an environment against everything TreeGym's environments promise. Run it on your own."""

from __future__ import annotations

import copy
import json
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from treegym.check.batches import check_autoreset, check_vector_equals_single
from treegym.check.tools import STEPS, CheckFailed, demand, legal_action, nondeterministic, same
from treegym.errors import MissingDependency

__all__ = ["CHECKS", "CheckFailed", "check_suite"]

_RESERVED = ("episode", "final_obs", "final_info", "TimeLimit.truncated", "terminal_observation")
Check = Callable[[str, dict[str, Any]], None]


def check_suite(env_id: str, **kwargs: Any) -> list[str]:
    """Checks an environment against the whole contract; returns the names of the checks that passed.

    Args:
        env_id: a registered id.
        **kwargs: keyword arguments for ``gym.make`` (and, where the id has a native batch, ``gym.make_vec``).

    Raises:
        CheckFailed: at the first point that does not hold.
    """
    names = [check.__name__.removeprefix("check_") for check in CHECKS]
    for name, check in zip(names, CHECKS, strict=True):
        try:
            check(env_id, kwargs)
        except MissingDependency:
            raise
        except Exception as error:
            what = str(error) if isinstance(error, CheckFailed) else f"{type(error).__name__}: {error}"
            raise CheckFailed(f"{env_id} fails the check of {name}: {what}") from error
    return names


def _rollout(env: gym.Env, *, seed: int, steps: int = STEPS) -> list[Any]:
    """Returns everything a seeded walk of legal actions sees."""
    rng = np.random.default_rng(seed)
    seen: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        outcome = env.step(legal_action(env, rng))
        seen.append(outcome)
        if outcome[2] or outcome[3]:
            seen.append(env.reset())
    return seen


def check_spaces(env_id: str, kwargs: dict[str, Any]) -> None:
    """Discrete actions from 0; a one-level Dict of a bounded float32 vector and an int8 mask."""
    env = gym.make(env_id, **kwargs)
    actions, space = env.action_space, env.observation_space
    demand(isinstance(actions, gym.spaces.Discrete) and actions.start == 0, f"actions are {actions}, not Discrete(K)")
    demand(isinstance(space, gym.spaces.Dict), f"observations are {type(space).__name__}, not a Dict")
    assert isinstance(space, gym.spaces.Dict)
    assert isinstance(actions, gym.spaces.Discrete)
    demand({"observations", "action_mask"} <= set(space.spaces), f"observation keys are {list(space.spaces)}")
    for key, part in space.spaces.items():
        demand(isinstance(part, gym.spaces.Box), f"observation {key!r} is {type(part).__name__}, not a Box")
    vector, mask = space.spaces["observations"], space.spaces["action_mask"]
    assert isinstance(vector, gym.spaces.Box)
    assert isinstance(mask, gym.spaces.Box)
    demand(vector.dtype == np.float32 and len(vector.shape) == 1, f"observations are {vector}, not 1-D float32")
    demand(vector.is_bounded(), "the bounds of observations are not finite")
    demand(mask.dtype == np.int8 and mask.shape == (int(actions.n),), f"the mask is {mask}, not int8 of length K")
    env.close()


def check_gymnasium(env_id: str, kwargs: dict[str, Any]) -> None:
    """Gymnasium's own checker, without warnings that matter."""
    env = gym.make(env_id, **kwargs)
    if getattr(env.unwrapped, "multi_objective", False):
        env.close()  # it insists on scalar rewards; the other checks still hold these ids to everything else
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def check_masks(env_id: str, kwargs: dict[str, Any]) -> None:
    """The mask stands in the observation, in the info and in action_masks(), equal, never empty."""
    env = gym.make(env_id, **kwargs)
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=0)
    for step in range(STEPS):
        masks = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        demand(masks.dtype == np.bool_, f"action_masks() returns {masks.dtype}, not bool")
        demand(bool(masks.any()), f"no action is legal at step {step}")
        demand(same(observation["action_mask"], masks), "obs['action_mask'] and action_masks() differ")
        demand(same(info["action_mask"], masks), "info['action_mask'] and action_masks() differ")
        for mask in (observation["action_mask"], info["action_mask"]):
            demand(mask.dtype == np.int8, f"a mask is {mask.dtype}; Discrete.sample(mask) needs int8")
        env.action_space.sample(info["action_mask"])
        observation, _, terminated, truncated, info = env.step(int(rng.choice(np.flatnonzero(masks))))
        if terminated or truncated:
            observation, info = env.reset()
    env.close()


def check_illegal_actions(env_id: str, kwargs: dict[str, Any]) -> None:
    """An illegal action is a flagged, penalised no-op; it never raises; a legal one is not flagged."""
    env, rng = gym.make(env_id, **kwargs), np.random.default_rng(0)
    for seed in range(20):
        env.reset(seed=seed)
        for _ in range(STEPS):
            seen, _, ended, cut, info = env.step(legal_action(env, rng))
            demand(info["illegal_action"] is False, "a legal action is flagged in info['illegal_action']")
            if ended or cut:
                break
            illegal = np.flatnonzero(seen["action_mask"] == 0)
            if len(illegal):
                _check_no_op(env, seen, int(rng.choice(illegal)))
                return
    env.close()


def _check_no_op(env: gym.Env, before: Any, action: int) -> None:
    outcome: Any = env.step(action)
    after, reward, terminated, _, info = outcome
    demand(info["illegal_action"] is True, "an illegal action is not flagged in info['illegal_action']")
    demand(bool(np.all(np.asarray(reward) <= 0)), f"an illegal action earned {reward}")
    demand(not terminated, "an illegal action ended the episode")
    layout = getattr(env.unwrapped, "layout", None)  # where there is one, what is on offer must be the same
    offers = [layout.split(seen["observations"])[1] for seen in (before, after)] if layout else [0, 0]
    still = same(before["action_mask"], after["action_mask"]) and same(*offers)
    demand(still, "an illegal action moved the environment; it must change nothing but the budget")
    env.close()


def check_types(env_id: str, kwargs: dict[str, Any]) -> None:
    """Rewards are finite Python floats (arrays for MO ids), terminated and truncated Python bools."""
    env = gym.make(env_id, **kwargs)
    multi = getattr(env.unwrapped, "multi_objective", False)
    rng = np.random.default_rng(1)
    env.reset(seed=1)
    for _ in range(STEPS):
        outcome: Any = env.step(legal_action(env, rng))
        observation, reward, terminated, truncated, info = outcome
        if multi:
            space = env.unwrapped.reward_space  # type: ignore[attr-defined]
            demand(isinstance(reward, np.ndarray) and reward.shape == space.shape, f"the vector reward is {reward!r}")
        else:
            demand(type(reward) is float, f"the reward is a {type(reward).__name__}, not a float")
        demand(bool(np.isfinite(reward).all()), f"the reward is {reward}")
        demand(type(terminated) is bool and type(truncated) is bool, "terminated or truncated is not a Python bool")
        demand(env.observation_space.contains(observation), "an observation lies outside its space")
        vector = info.get("vector_reward")
        demand(getattr(vector, "dtype", None) == np.float32, "info['vector_reward'] is missing or not float32")
        demand(bool(np.isfinite(vector).all()), f"info['vector_reward'] is {vector}")
        if terminated or truncated:
            env.reset()
    demand(not hasattr(env.unwrapped, "compute_reward"), "compute_reward makes SB3 take the env for a GoalEnv")
    env.close()


def check_info(env_id: str, kwargs: dict[str, Any]) -> None:
    """Info keys keep one type and shape and leave reserved names alone; two objects are never shared."""
    env = gym.make(env_id, **kwargs)
    kinds: dict[str, Any] = {}
    keys: set[str] = set()
    seen: list[Any] = []  # everything, and
    copies: list[Any] = []  # what it was when it came
    previous: list[Any] = []
    rng = np.random.default_rng(2)
    outcome: Any = env.reset(seed=2)
    for _ in range(STEPS):
        observation, info = outcome[0], outcome[-1]
        seen.append((observation, info))
        copies.append(copy.deepcopy((observation, info)))
        for key in info:
            demand(key not in _RESERVED and not key.startswith("_"), f"info key {key!r} is reserved")
        for key, value in _leaves(info):
            kind = (type(value), value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value)
            demand(kinds.setdefault(key, kind) == kind, f"info[{key!r}] was {kinds[key]} and is now {kind}")
        keys = keys or set(info)
        demand(set(info) == keys, f"the keys of info were {sorted(keys)} and are now {sorted(info)}")
        demand(isinstance(info.get("is_success"), bool), "info['is_success'] is missing or not a Python bool")
        arrays = [value for _, value in _leaves([observation, info]) if isinstance(value, np.ndarray)]
        shared = any(np.shares_memory(a, b) for a in arrays for b in previous)
        demand(not shared, "two steps share an array; observations and infos must be fresh")
        inner = any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
        demand(not inner, "an observation and its info share an array")
        previous = arrays
        ended = len(outcome) == 5 and (outcome[2] or outcome[3])
        outcome = env.reset() if ended else env.step(legal_action(env, rng))
    demand(same(seen, copies), "what an earlier step returned was changed by a later one; return fresh objects")
    env.close()


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields everything inside nested dictionaries and lists, named by the way to it."""
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def check_seeding(env_id: str, kwargs: dict[str, Any]) -> None:
    """The same seed gives the same episodes in a second environment and after a reset."""
    if nondeterministic(env_id):
        return
    first, second = gym.make(env_id, **kwargs), gym.make(env_id, **kwargs)
    a, b = _rollout(first, seed=7), _rollout(second, seed=7)
    demand(same(a, b), "two environments with the same seed walk differently")
    demand(same(a, _rollout(first, seed=7)), "the same seed gives another walk the second time")
    first.close()
    second.close()


def _digest(spec: str, queue: Any) -> None:
    try:
        queue.put(_fingerprint(_rollout(gym.make(EnvSpec.from_json(spec)), seed=7)))
    except Exception as error:  # noqa: BLE001 - told to the parent, who raises it
        queue.put(f"{type(error).__name__}: {error}")


def _fingerprint(walk: list[Any]) -> list[tuple[float, float]]:
    """Returns two numbers an outcome: enough to tell walks apart, small enough to send."""
    return [
        (float(outcome[0]["observations"].astype(np.float64).sum()), float(np.sum(outcome[1])) if outcome[2:] else 0.0)
        for outcome in walk
    ]


def check_other_process(env_id: str, kwargs: dict[str, Any]) -> None:
    """The same seed gives the same episodes in another process."""
    if nondeterministic(env_id):
        return
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    env = gym.make(env_id, **kwargs)
    assert env.spec is not None
    worker = context.Process(target=_digest, args=(env.spec.to_json(), queue), daemon=True)
    worker.start()
    theirs = queue.get(timeout=120)
    worker.join(timeout=30)
    demand(not isinstance(theirs, str), f"another process cannot make or step it: {theirs}")
    demand(theirs == _fingerprint(_rollout(env, seed=7)), "another process walks differently")
    env.close()


def check_spec(env_id: str, kwargs: dict[str, Any]) -> None:
    """Keyword arguments are JSON; a spec that went through JSON makes an environment that behaves the same."""
    env = gym.make(env_id, **kwargs)
    assert env.spec is not None
    for what, point in (("entry point", env.spec.entry_point), ("vector entry point", env.spec.vector_entry_point)):
        demand(isinstance(point, str | None), f"the {what} is {point!r}, not a string such as 'package.module:Class'")
    demand(json.loads(json.dumps(kwargs)) == kwargs, "the keyword arguments are not the same after JSON")
    second = gym.make(EnvSpec.from_json(env.spec.to_json()))
    if not nondeterministic(env_id):
        demand(same(_rollout(env, seed=3), _rollout(second, seed=3)), "the copy made from spec.to_json() differs")
    env.close()
    second.close()


def check_endings(env_id: str, kwargs: dict[str, Any]) -> None:
    """Episodes end, never by truncation at the first step, and close() may be called twice."""
    env = gym.make(env_id, **kwargs)
    rng = np.random.default_rng(4)
    ended = 0
    for seed in range(5):
        env.reset(seed=seed)
        for step in range(10_000):
            _, _, terminated, truncated, _ = env.step(legal_action(env, rng))
            demand(not (truncated and step == 0), "an episode was truncated at its first step")
            if terminated or truncated:
                ended += 1
                break
    demand(ended == 5, f"only {ended} of 5 episodes ended within 10,000 steps")
    env.close()
    env.close()


def check_rendering(env_id: str, kwargs: dict[str, Any]) -> None:
    """Text and image rendering work; images are uint8 HxWx3; the metadata names the modes and the frame rate."""
    metadata = gym.make(env_id, **kwargs).metadata
    modes = set(metadata.get("render_modes", ()))
    demand({"ansi", "rgb_array"} <= modes, f"the render_modes are {sorted(modes)}; ansi and rgb_array must be there")
    demand(metadata.get("render_fps", 0) > 0, "the metadata has no render_fps")
    for mode in ("ansi", "rgb_array"):
        env = gym.make(env_id, **{**kwargs, "render_mode": mode})
        env.reset(seed=0)
        picture: Any = env.render()
        if mode == "ansi":
            demand(isinstance(picture, str) and bool(picture), "ansi rendering gives no text")
        else:
            demand(picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, "not uint8 HxWx3")
        env.close()


CHECKS: tuple[Check, ...] = (
    check_spaces,
    check_gymnasium,
    check_masks,
    check_illegal_actions,
    check_types,
    check_info,
    check_seeding,
    check_spec,
    check_other_process,
    check_endings,
    check_rendering,
    check_vector_equals_single,
    check_autoreset,
)
