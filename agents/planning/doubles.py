"""Doubles of single environments: where a search steps, so that the episodes being played are left alone.

An environment that offers `clone_state` and `restore_state` is borrowed and put back. Any other is copied: what its
attributes hold is the state, and a copy of the whole environment is the stage. Wrappers that look or limit are left
out (a search looks past a time limit), those that change what is seen or paid are copied along. Letters: B states.
"""

from __future__ import annotations

import copy
import random
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from treegym.errors import ConfigError

__all__ = ["Copies", "Double", "OwnClones", "double_of", "layers_of", "more_of", "only_looks"]

# wrappers that neither change what is seen nor what is paid: Gymnasium's and SB3's
_LOOKING = frozenset({
    "TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo", "HumanRendering",
    "RenderCollection", "Monitor",
})  # fmt: skip
_KEPT = (
    int, float, complex, str, bytes, type(None), np.generic,  # these cannot change
    gym.Space, EnvSpec, ModuleType, FunctionType, BuiltinFunctionType, type,  # these do not
)  # fmt: skip
_RANDOM = (np.random.Generator, np.random.RandomState, random.Random)

Snapshot = tuple[dict[str, Any], ...]  # the attributes of each layer


class Double(Protocol):
    """Steps from any state, whatever became of the last one."""

    def capture(self, env: gym.Env) -> Any:
        """Returns the state of an environment like the one this was made of."""
        ...

    def step(self, state: Any, action: int) -> tuple[Any, Any, Any, bool]:
        """Returns the next state, what is seen there, what the step pays, and whether the episode ended by itself."""
        ...


class OwnClones:
    """An environment that knows how to copy itself; `restore_state` returns what is seen there."""

    def __init__(self, env: gym.Env) -> None:
        self.inner: Any = env.unwrapped

    def capture(self, env: gym.Env) -> Any:
        inner: Any = env.unwrapped
        return inner.clone_state()

    def step(self, state: Any, action: int) -> tuple[Any, Any, Any, bool]:
        self.inner.restore_state(state)
        seen, reward, ended, _, _ = self.inner.step(action)  # being cut off is no end: the critic looks past it
        return self.inner.clone_state(), seen, reward, ended


class Copies:
    """A copy of an environment whose attributes are replaced before every step.

    Random generators are never copied: a search must not know what will be drawn. A step that draws is found out by
    stepping twice, and refused.
    """

    def __init__(self, env: gym.Env) -> None:
        try:
            self.env: gym.Env = copy.deepcopy(env)
        except Exception as error:  # whatever an attribute's own copying raises
            raise ConfigError(f"{env} cannot be copied to search in it ({error}); {REMEDY}") from error
        self._strip()
        self.layers = layers_of(self.env)
        self._random: dict[tuple[int, str], Any] = {}  # the stage's own generators

    def _strip(self) -> None:
        """Takes the wrappers that only look out of the copy."""
        while only_looks(self.env):
            self.env = self.env.env  # type: ignore[attr-defined]
        layer: Any = self.env
        while isinstance(layer, gym.Wrapper):
            while only_looks(layer.env):
                layer.env = layer.env.env  # type: ignore[attr-defined]
            layer = layer.env

    def capture(self, env: gym.Env) -> Snapshot:
        layers = [layer for layer in layers_of(env) if not only_looks(layer)]
        return self._copied([vars(layer) for layer in layers], dict(zip(map(id, layers), self.layers, strict=True)))

    def step(self, state: Snapshot, action: int) -> tuple[Snapshot, Any, Any, bool]:
        fresh = self._copied(state, {id(layer): layer for layer in self.layers})
        for number, (layer, kept) in enumerate(zip(self.layers, fresh, strict=True)):
            own = {name: made for (at, name), made in self._random.items() if at == number}
            layer.__dict__ = kept | own
        seen, reward, ended, _, _ = self.env.step(action)
        return tuple(dict(vars(layer)) for layer in self.layers), seen, reward, bool(ended)

    def _copied(self, attributes: Any, memo: dict[int, Any]) -> Snapshot:
        """Returns copies of each layer's attributes; `memo` says by what the layers themselves are replaced."""
        memo = dict(memo)
        for number, kept in enumerate(attributes):
            for name, value in kept.items():
                if isinstance(value, _RANDOM):
                    memo[id(value)] = self._own_random(number, name, value)
        return tuple(
            {name: _copy_of(name, value, memo) for name, value in kept.items() if not isinstance(value, _RANDOM)}
            for kept in attributes
        )

    def _own_random(self, number: int, name: str, value: Any) -> Any:
        key = number, name
        if key not in self._random:
            fresh = np.random.default_rng(len(self._random))
            self._random[key] = fresh if isinstance(value, np.random.Generator) else type(value)(0)
        return self._random[key]


REMEDY = "give it clone_state and restore_state (which returns what is seen there), or use PPO"


def _copy_of(name: str, value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, _KEPT) or type(value).__module__.partition(".")[0] == "pygame":
        return value
    if id(value) in memo:
        return memo[id(value)]
    if type(value) is np.ndarray and not value.dtype.hasobject:
        memo[id(value)] = made = value.copy()
        return made
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        raise ConfigError(
            f"the environment cannot be copied to search in it: its attribute {name!r} ({type(value).__name__}) "
            f"cannot ({error}); {REMEDY}"
        ) from error


def layers_of(env: gym.Env) -> list[Any]:
    """Returns an environment and all that is within it, from the outside in."""
    layers: list[Any] = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def only_looks(layer: Any) -> bool:
    """Returns whether a layer changes neither what is seen nor what is paid."""
    return isinstance(layer, gym.Wrapper) and type(layer).__name__ in _LOOKING


def clones_itself(env: gym.Env) -> bool:
    """Returns whether an environment offers states, and nothing around it changes what they show."""
    *wrappers, inner = layers_of(env)
    return hasattr(inner, "clone_state") and hasattr(inner, "restore_state") and all(map(only_looks, wrappers))


def double_of(env: gym.Env) -> Double:
    """Returns a double of an environment; raises ConfigError if it cannot be copied."""
    return OwnClones(env) if clones_itself(env) else Copies(env)


def more_of(env: gym.Env, count: int) -> list[gym.Env]:
    """Returns further environments like one, or none where that one can be neither made again nor copied."""
    spec = env.spec
    if spec is not None and not spec.additional_wrappers:
        return [gym.make(spec) for _ in range(count)]
    try:
        return [copy.deepcopy(env) for _ in range(count)]
    except (TypeError, AttributeError, RecursionError, NotImplementedError, copy.Error):
        return []  # it plays by itself then, which is slower and nothing else
