"""check_suite: holds an environment against everything TreeGym's environments promise. Run it on your own."""

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv

from treegym.errors import TreeGymError

__all__ = ["CHECKS", "CheckFailed", "check_suite"]

_RESERVED = ("episode", "final_obs", "final_info", "TimeLimit.truncated", "terminal_observation")
_STEPS = 60
Check = Callable[[str, dict[str, Any]], None]


class CheckFailed(TreeGymError, AssertionError):
    """An environment breaks the contract; the message says which point and how."""


def check_suite(env_id: str, **kwargs: Any) -> list[str]:
    """Checks an environment against the whole contract; returns the names of the checks that passed.

    Args:
        env_id: a registered id.
        **kwargs: keyword arguments for ``gym.make`` (and, where the id has a native batch, ``gym.make_vec``).

    Raises:
        CheckFailed: at the first point that does not hold.
    """
    for check in CHECKS:
        check(env_id, kwargs)
    return [check.__name__.removeprefix("check_") for check in CHECKS]


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def _same(a: Any, b: Any) -> bool:
    """Whether two nested observations, infos or rewards are equal to the last bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f"))


def _legal(env: gym.Env, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(env.unwrapped.action_masks())))  # type: ignore[attr-defined]


def _rollout(env: gym.Env, *, seed: int, steps: int = _STEPS) -> list[Any]:
    """Returns everything a seeded walk of legal actions sees."""
    rng = np.random.default_rng(seed)
    seen: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        outcome = env.step(_legal(env, rng))
        seen.append(outcome)
        if outcome[2] or outcome[3]:
            seen.append(env.reset())
    return seen


def check_spaces(env_id: str, kwargs: dict[str, Any]) -> None:
    """Discrete actions from 0; a one-level Dict of a bounded float32 vector and an int8 mask."""
    env = gym.make(env_id, **kwargs)
    actions, space = env.action_space, env.observation_space
    _demand(isinstance(actions, gym.spaces.Discrete) and actions.start == 0, f"actions are {actions}, not Discrete(K)")
    _demand(isinstance(space, gym.spaces.Dict), f"observations are {type(space).__name__}, not a Dict")
    assert isinstance(space, gym.spaces.Dict)
    assert isinstance(actions, gym.spaces.Discrete)
    _demand({"observations", "action_mask"} <= set(space.spaces), f"observation keys are {list(space.spaces)}")
    for key, part in space.spaces.items():
        _demand(isinstance(part, gym.spaces.Box), f"observation {key!r} is {type(part).__name__}, not a Box")
    vector, mask = space.spaces["observations"], space.spaces["action_mask"]
    assert isinstance(vector, gym.spaces.Box)
    assert isinstance(mask, gym.spaces.Box)
    _demand(vector.dtype == np.float32 and len(vector.shape) == 1, f"observations are {vector}, not 1-D float32")
    _demand(vector.is_bounded(), "the bounds of observations are not finite")
    _demand(mask.dtype == np.int8 and mask.shape == (int(actions.n),), f"the mask is {mask}, not int8 of length K")
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
    for step in range(_STEPS):
        masks = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        _demand(masks.dtype == np.bool_, f"action_masks() returns {masks.dtype}, not bool")
        _demand(bool(masks.any()), f"no action is legal at step {step}")
        _demand(_same(observation["action_mask"], masks), "obs['action_mask'] and action_masks() differ")
        _demand(_same(info["action_mask"], masks), "info['action_mask'] and action_masks() differ")
        env.action_space.sample(info["action_mask"])
        observation, _, terminated, truncated, info = env.step(int(rng.choice(np.flatnonzero(masks))))
        if terminated or truncated:
            observation, info = env.reset()
    env.close()


def check_illegal_actions(env_id: str, kwargs: dict[str, Any]) -> None:
    """An illegal action is a flagged, penalised no-op; it never raises."""
    env = gym.make(env_id, **kwargs)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        illegal = np.flatnonzero(observation["action_mask"] == 0)
        if len(illegal):
            _, reward, _, _, info = env.step(int(illegal[0]))
            _demand(info["illegal_action"] is True, "an illegal action is not flagged in info['illegal_action']")
            _demand(bool(np.all(np.asarray(reward) <= 0)), f"an illegal action earned {reward}")
            break
    env.close()


def check_types(env_id: str, kwargs: dict[str, Any]) -> None:
    """Rewards are finite Python floats (arrays for MO ids), terminated and truncated Python bools."""
    env = gym.make(env_id, **kwargs)
    multi = getattr(env.unwrapped, "multi_objective", False)
    rng = np.random.default_rng(1)
    env.reset(seed=1)
    for _ in range(_STEPS):
        outcome: Any = env.step(_legal(env, rng))
        observation, reward, terminated, truncated, info = outcome
        if multi:
            space = env.unwrapped.reward_space  # type: ignore[attr-defined]
            _demand(isinstance(reward, np.ndarray) and reward.shape == space.shape, f"the vector reward is {reward!r}")
        else:
            _demand(type(reward) is float, f"the reward is a {type(reward).__name__}, not a float")
        _demand(bool(np.isfinite(reward).all()), f"the reward is {reward}")
        _demand(type(terminated) is bool and type(truncated) is bool, "terminated or truncated is not a Python bool")
        _demand(env.observation_space.contains(observation), "an observation lies outside its space")
        _demand(info["vector_reward"].dtype == np.float32, "info['vector_reward'] is not float32")
        if terminated or truncated:
            env.reset()
    _demand(not hasattr(env.unwrapped, "compute_reward"), "compute_reward makes SB3 take the env for a GoalEnv")
    env.close()


def check_info(env_id: str, kwargs: dict[str, Any]) -> None:
    """Info keys keep one type and shape and leave reserved names alone; two objects are never shared."""
    env = gym.make(env_id, **kwargs)
    kinds: dict[str, Any] = {}
    previous: list[Any] = []
    for outcome in _rollout(env, seed=2):
        observation, info = outcome[0], outcome[-1]
        for key, value in info.items():
            _demand(key not in _RESERVED and not key.startswith("_"), f"info key {key!r} is reserved")
            kind = (type(value), value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value)
            _demand(kinds.setdefault(key, kind) == kind, f"info[{key!r}] was {kinds[key]} and is now {kind}")
        arrays = [*observation.values(), *(v for v in info.values() if isinstance(v, np.ndarray))]
        shared = any(np.shares_memory(a, b) for a in arrays for b in previous)
        _demand(not shared, "two steps share an array; observations and infos must be fresh")
        inner = any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
        _demand(not inner, "an observation and its info share an array")
        previous = arrays
    env.close()


def check_seeding(env_id: str, kwargs: dict[str, Any]) -> None:
    """The same seed gives the same episodes in a second environment and after a reset."""
    if _nondeterministic(env_id):
        return
    first, second = gym.make(env_id, **kwargs), gym.make(env_id, **kwargs)
    a, b = _rollout(first, seed=7), _rollout(second, seed=7)
    _demand(_same(a, b), "two environments with the same seed walk differently")
    _demand(_same(a, _rollout(first, seed=7)), "the same seed gives another walk the second time")
    first.close()
    second.close()


def _digest(env_id: str, kwargs: dict[str, Any], queue: Any) -> None:
    import treegym  # noqa: F401 (registers the ids in the new process)

    queue.put(_fingerprint(_rollout(gym.make(env_id, **kwargs), seed=7)))


def _fingerprint(walk: list[Any]) -> list[float]:
    """Returns a number an outcome: enough to tell two walks apart, small enough to send."""
    return [float(outcome[0]["observations"].astype(np.float64).sum()) for outcome in walk]


def check_other_process(env_id: str, kwargs: dict[str, Any]) -> None:
    """The same seed gives the same episodes in another process."""
    if _nondeterministic(env_id):
        return
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_digest, args=(env_id, kwargs, queue), daemon=True)
    worker.start()
    theirs = queue.get(timeout=120)
    worker.join(timeout=30)
    _demand(theirs == _fingerprint(_rollout(gym.make(env_id, **kwargs), seed=7)), "another process walks differently")


def check_spec(env_id: str, kwargs: dict[str, Any]) -> None:
    """Keyword arguments are JSON; a spec that went through JSON makes an environment that behaves the same."""
    env = gym.make(env_id, **kwargs)
    assert env.spec is not None
    json.dumps(kwargs)
    copy = gym.make(EnvSpec.from_json(env.spec.to_json()))
    if not _nondeterministic(env_id):
        _demand(_same(_rollout(env, seed=3), _rollout(copy, seed=3)), "the copy made from spec.to_json() differs")
    _demand(isinstance(env.spec.entry_point, str), "the entry point is not a string")
    env.close()
    copy.close()


def check_endings(env_id: str, kwargs: dict[str, Any]) -> None:
    """Episodes end, never by truncation at the first step, and close() may be called twice."""
    env = gym.make(env_id, **kwargs)
    rng = np.random.default_rng(4)
    ended = 0
    for seed in range(5):
        env.reset(seed=seed)
        for step in range(10_000):
            _, _, terminated, truncated, _ = env.step(_legal(env, rng))
            _demand(not (truncated and step == 0), "an episode was truncated at its first step")
            if terminated or truncated:
                ended += 1
                break
    _demand(ended == 5, f"only {ended} of 5 episodes ended within 10,000 steps")
    env.close()
    env.close()


def check_rendering(env_id: str, kwargs: dict[str, Any]) -> None:
    """Text and image rendering work; images are uint8 HxWx3."""
    for mode in ("ansi", "rgb_array"):
        env = gym.make(env_id, **{**kwargs, "render_mode": mode})
        _demand(mode in env.metadata["render_modes"], f"render mode {mode!r} is not in the metadata")
        env.reset(seed=0)
        picture: Any = env.render()
        if mode == "ansi":
            _demand(isinstance(picture, str) and bool(picture), "ansi rendering gives no text")
        else:
            _demand(picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, "not uint8 HxWx3")
        env.close()


def _make_vector(env_id: str, num_envs: int, kwargs: dict[str, Any], **more: Any) -> VectorEnv:
    return gym.make_vec(env_id, num_envs=num_envs, **kwargs, **more)


def check_vector_equals_single(env_id: str, kwargs: dict[str, Any]) -> None:
    """Lane i of the native batch seeded with s walks as the single environment seeded with s + i."""
    if gym.spec(env_id).vector_entry_point is None or _nondeterministic(env_id):
        return
    batch = _make_vector(env_id, 3, kwargs)
    singles = [gym.make(env_id, **kwargs) for _ in range(3)]
    seen, _ = batch.reset(seed=11)
    expected = [env.reset(seed=11 + lane)[0] for lane, env in enumerate(singles)]
    rng, done = np.random.default_rng(5), [False] * 3
    for _ in range(_STEPS):
        for lane in range(3):
            row = {key: value[lane] for key, value in seen.items()}
            _demand(_same(row, expected[lane]), f"lane {lane} of the batch sees something else than the single env")
        actions = [_legal(env, rng) for env in singles]
        seen, rewards, terminated, truncated, info = batch.step(np.array(actions))
        for lane, env in enumerate(singles):
            if done[lane]:
                expected[lane], done[lane] = env.reset()[0], False
                continue
            expected[lane], reward, ended, cut, single_info = env.step(actions[lane])
            same = _same(rewards[lane], reward) and terminated[lane] == ended and truncated[lane] == cut
            _demand(bool(same), f"lane {lane}: reward or ending differs from the single environment's")
            _demand(bool(info["is_success"][lane] == single_info["is_success"]), "is_success differs in the batch")
            done[lane] = ended or cut
    batch.close()


def check_autoreset(env_id: str, kwargs: dict[str, Any]) -> None:
    """All three autoreset modes: metadata, final observations, reset masks, episode limits."""
    if gym.spec(env_id).vector_entry_point is None:
        return
    default = _make_vector(env_id, 2, kwargs)
    _demand(default.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP, "autoreset is not NEXT_STEP by default")
    same = _make_vector(env_id, 4, kwargs, autoreset_mode=AutoresetMode.SAME_STEP.value)
    off = _make_vector(env_id, 4, kwargs, autoreset_mode=AutoresetMode.DISABLED.value)
    rng = np.random.default_rng(6)
    for env in (same, off):
        seen, _ = env.reset(seed=0)
        for _ in range(_STEPS):
            actions = [rng.choice(np.flatnonzero(mask)) for mask in seen["action_mask"]]
            seen, _, terminated, truncated, info = env.step(np.array(actions))
            done = terminated | truncated
            if done.any() and env is same:
                _demand(_same(info["_final_obs"], done), "info['_final_obs'] does not mark the lanes that ended")
                final = info["final_obs"][int(np.flatnonzero(done)[0])]
                _demand(env.single_observation_space.contains(final), "a final observation lies outside its space")
                _demand("is_success" in info["final_info"], "final_info lacks is_success")
            elif done.any():
                seen, _ = env.reset(options={"reset_mask": done})
        env.close()
    limited = _make_vector(env_id, 2, kwargs, max_episode_steps=2)
    seen, _ = limited.reset(seed=0)
    for _ in range(2):
        actions = [np.flatnonzero(mask)[0] for mask in seen["action_mask"]]
        seen, _, terminated, truncated, _ = limited.step(np.array(actions))
    _demand(bool((terminated | truncated).all()), "max_episode_steps=2 does not end episodes after two steps")
    limited.close()


def _nondeterministic(env_id: str) -> bool:
    return bool(gym.spec(env_id).nondeterministic)


CHECKS: tuple[Check, ...] = (
    check_spaces,
    check_gymnasium,
    check_masks,
    check_illegal_actions,
    check_types,
    check_info,
    check_seeding,
    check_other_process,
    check_spec,
    check_endings,
    check_rendering,
    check_vector_equals_single,
    check_autoreset,
)
