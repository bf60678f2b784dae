"""Checks of what a simulator gives, before any kernel reads it."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.base import Evaluation, Simulator, Transition
from treegym.search.states import count

__all__ = ["PROBLEMS", "check_evaluation", "check_range", "expanded", "positive", "stepped"]

# What is wrong with a row, by the codes of the kernel `fill_dense`.
PROBLEMS = {
    1: "has no legal action",
    2: "has a prior logit that is NaN or +inf",
    3: "has prior logits of -inf for all its legal actions",
    4: "has a reward or value that is not finite",
    5: "cannot be judged: the compiled model raised an exception",
}


def check_evaluation(evaluation: Evaluation, rows: int, actions: int, what: str) -> Evaluation:
    """Returns the evaluation as contiguous arrays, or raises `ConfigError` naming the array and the row at fault."""
    logits = np.ascontiguousarray(evaluation.prior_logits, np.float32)
    value = np.ascontiguousarray(evaluation.value, np.float32)
    legal = np.ascontiguousarray(evaluation.legal, np.bool_)
    for name, array, shape in (
        ("prior_logits", logits, (rows, actions)),
        ("value", value, (rows,)),
        ("legal", legal, (rows, actions)),
    ):
        if array.shape != shape:
            raise ConfigError(f"{what}: the simulator's {name} has shape {array.shape}; expected {shape}")
    if not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ConfigError(f"{what}: the simulator's value of row {row} is {value[row]}; it must be finite")
    return Evaluation(logits, value, legal)


def positive(name: str, number: Any) -> int:
    """Returns a whole number from 1, or raises `ConfigError`."""
    if not isinstance(number, (int, np.integer)) or number < 1:
        raise ConfigError(f"{name} is {number!r}; it must be a whole number from 1")
    return int(number)


def check_range(simulator: Simulator, states: Any, what: str) -> None:
    """Raises `ConfigError` for a state that a simulator with a number of states (``num_states``) does not have."""
    known = getattr(simulator, "num_states", None)
    if known is None or not isinstance(states, np.ndarray) or not np.issubdtype(states.dtype, np.integer):
        return
    bad = np.argwhere((states < 0) | (states >= known))
    if len(bad):
        row = int(bad[0, 0])
        raise ConfigError(
            f"{what}: state {states[tuple(bad[0])]} of row {row} is out of range; there are {known} states"
        )


def expanded(simulator: Simulator, states: Any, what: str) -> Evaluation:
    """Returns the simulator's judgement of states, checked; `what` says which states these are."""
    if not count(states):
        raise ConfigError(f"{what}: there are no states to judge; search needs at least one root")
    check_range(simulator, states, what)
    try:
        given = simulator.expand(states)
    except IndexError as error:
        raise ConfigError(f"{what}: the simulator cannot judge a state it was given or stepped to ({error})") from error
    return check_evaluation(given, count(states), int(simulator.num_actions), what)


def stepped(simulator: Simulator, states: Any, actions: np.ndarray) -> Transition:
    """Returns what the simulator's step gives, one new state for each action."""
    try:
        moved = simulator.step(states, actions)
    except IndexError as error:
        raise ConfigError(
            f"below the roots: the simulator cannot step a state it stepped to before ({error})"
        ) from error
    if count(moved.states) != len(actions):
        raise ConfigError(f"the simulator's step gave {count(moved.states)} states for {len(actions)} actions")
    check_range(simulator, moved.states, "after a step")
    return Transition(moved.states, moved.reward, moved.terminated)
