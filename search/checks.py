"""Checks of what a simulator gives, before any kernel reads it."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.kernels import codes
from treegym.search.kernels.numeric import LARGEST
from treegym.search.simulator import Evaluation, Simulator, Transition
from treegym.search.states import count, differing

__all__ = [
    "FINITE",
    "PROBLEMS",
    "Checked",
    "answered",
    "arrays_of",
    "as_array",
    "budget",
    "check_evaluation",
    "check_range",
    "check_steady",
    "check_step",
    "check_width",
    "expanded",
    "first_beyond",
    "from_zero",
    "judgement_of",
    "positive",
    "real_numbers",
    "second_to_play",
    "step_of",
    "stepped",
    "whole_numbers",
]

# What is wrong with a row, as kernels tell it.
PROBLEMS = {
    codes.NO_LEGAL_MOVE: "has no legal action",
    codes.UNUSABLE_LOGIT: "has a prior logit that is NaN or +inf",
    codes.NO_PRIOR: "has prior logits of -inf for all its legal actions",
    codes.UNUSABLE_NUMBER: f"has a reward or value that is not finite, or beyond {LARGEST:g}",
    codes.RAISED: "cannot be judged: the compiled model raised an exception",
}


FINITE = f"it must be finite, and within {LARGEST:g}"


def first_beyond(numbers: np.ndarray) -> int:
    """Returns the first row that is NaN or beyond what a reward or value may be; -1 where all are well."""
    well = np.abs(numbers) <= LARGEST
    return -1 if well.all() else int(np.flatnonzero(~well)[0])


def as_array(name: str, given: Any, dtype: type) -> np.ndarray:
    """Returns what a simulator gave as a contiguous array; tensors come without their history, from any device."""
    if type(given) is np.ndarray and given.dtype == dtype:  # nearly always, and in the inner loop of a search
        return given if given.flags.c_contiguous else np.ascontiguousarray(given)
    if hasattr(given, "detach"):
        given = given.detach().to("cpu")
        if given.dtype.is_floating_point:
            given = given.float()  # NumPy knows no bfloat16
    try:
        with np.errstate(over="ignore"):  # what is beyond float32 is told by name later
            return np.ascontiguousarray(given, dtype)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the simulator's {name} cannot be made an array of {np.dtype(dtype)} ({error})") from error


class Checked(Evaluation):
    """An evaluation that was checked."""

    __slots__ = ()


def check_evaluation(evaluation: Evaluation, rows: int, actions: int, what: str) -> Evaluation:
    """Returns the evaluation as contiguous arrays, or raises `ConfigError` naming the array and the row at fault."""
    logits = as_array("prior_logits", evaluation.prior_logits, np.float32)
    value = as_array("value", evaluation.value, np.float32)
    legal = as_array("legal", evaluation.legal, np.bool_)
    for name, array, shape in (
        ("prior_logits", logits, (rows, actions)),
        ("value", value, (rows,)),
        ("legal", legal, (rows, actions)),
    ):
        if array.shape != shape:
            raise ConfigError(f"{what}: the simulator's {name} has shape {array.shape}; expected {shape}")
    if (row := first_beyond(value)) >= 0:
        raise ConfigError(f"{what}: the simulator's value of row {row} is {value[row]}; {FINITE}")
    return Checked(logits, value, legal, getattr(evaluation, "to_play", None))


def second_to_play(given: Any, rows: int, players: int, what: str) -> np.ndarray:
    """Returns whether the second player is to move, bool [rows], from what a simulator said; raises `ConfigError`."""
    if players == 1:
        return np.zeros(rows, np.bool_)
    if given is None:
        raise ConfigError(f"{what}: there are two players, and the simulator does not say whose turn it is (`to_play`)")
    turn = whole_numbers(f"{what}: to_play", given, np.int64)
    if turn.shape != (rows,):
        raise ConfigError(f"{what}: to_play has shape {turn.shape}; expected {(rows,)}")
    wrong = np.flatnonzero((turn < 0) | (turn >= players))
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(f"{what}: to_play of row {row} is {int(turn[row])}; it must be 0 or 1")
    return turn == 1


def positive(name: str, number: Any) -> int:
    """Returns a whole number from 1, or raises `ConfigError`."""
    if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or not 1 <= number < 2**31 - 1:
        raise ConfigError(f"{name} is {number!r}; it must be a whole number from 1, below 2 ** 31 - 1")
    return int(number)


def check_width(actions: int) -> None:
    """Raises `ConfigError` for more actions than a tree can name."""
    if actions > np.iinfo(np.int16).max:
        raise ConfigError(f"{actions} actions; a search tree holds at most {np.iinfo(np.int16).max}")


def from_zero(name: str, number: Any, most: float) -> float:
    """Returns a number from 0 to `most`, or raises `ConfigError`."""
    if not isinstance(number, (int, float, np.number)) or not 0.0 <= number <= most:
        raise ConfigError(f"{name} is {number!r}; it must be a number from 0.0 to {most}")
    return float(number)


def budget(name: str, number: Any, *, whole: bool) -> Any:
    """Returns a budget: None or a number from 0 (a whole one if asked for), or raises `ConfigError`."""
    kinds = (int, np.integer) if whole else (int, float, np.number)
    if number is not None and (not isinstance(number, kinds) or isinstance(number, bool) or not number >= 0):
        raise ConfigError(f"{name} is {number!r}; it must be a {'whole ' if whole else ''}number from 0, or None")
    return number


def whole_numbers(name: str, given: Any, dtype: type) -> np.ndarray:
    """Returns whole numbers as a contiguous array of `dtype`; raises `ConfigError` for others, and beyond its range."""
    array = np.asarray(given)
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ConfigError(f"{name} holds {array.dtype} numbers; it must hold whole numbers")
    limits = np.iinfo(dtype)
    wrong = np.flatnonzero((array < limits.min) | (array > limits.max))
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(f"{name} is {array.flat[row]} at row {row}; it must be from {limits.min} to {limits.max}")
    return np.ascontiguousarray(array, dtype)


def real_numbers(name: str, given: Any) -> np.ndarray:
    """Returns real numbers as a contiguous float32 array, or raises `ConfigError`."""
    array = np.asarray(given)
    if array.size and array.dtype.kind not in "fiub":
        raise ConfigError(f"{name} holds {array.dtype} numbers; it must hold real numbers")
    return np.ascontiguousarray(array, np.float32)


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
    return check_evaluation(judgement_of(simulator, states, what), count(states), int(simulator.num_actions), what)


def judgement_of(simulator: Simulator, states: Any, what: str) -> Evaluation:
    """Returns what the simulator's `expand` gives; only its form is checked."""
    try:
        given = simulator.expand(states)
    except IndexError as error:
        raise ConfigError(f"{what}: the simulator cannot judge a state it was given or stepped to ({error})") from error
    answered(given, Evaluation, "expand")
    return given


def answered(given: Any, kind: Any, what: str) -> None:
    """Raises `ConfigError` for an answer without the fields of `kind`."""
    if isinstance(given, kind):
        return
    needed = [name for name in kind._fields if name not in kind._field_defaults]
    if not all(hasattr(given, name) for name in needed):
        raise ConfigError(
            f"the simulator's {what} gave a {type(given).__name__}; it must give a treegym.search.{kind.__name__} "
            f"of {', '.join(needed)}"
        )


_STEADY: weakref.WeakSet[Any] = weakref.WeakSet()  # simulators that stepped twice alike


def check_steady(simulator: Simulator, states: Any, actions: np.ndarray, moved: Transition) -> None:
    """Steps once more where a simulator was not yet seen to step alike twice; raises `ConfigError` if it does not.

    A search keeps the first outcome of a step for good, so in a world of chance it would plan for that one alone.
    """
    try:
        if simulator in _STEADY:
            return
        _STEADY.add(simulator)
    except TypeError:  # cannot be told apart from others: looked at in each search
        pass
    again = arrays_of(simulator.step(states, actions))
    found = [
        row
        for name in ("states", "reward", "terminated")
        for row in differing(getattr(moved, name), getattr(again, name))
    ]
    if found:
        row = int(min(found))
        with contextlib.suppress(TypeError):
            _STEADY.discard(simulator)
        raise ConfigError(
            f"the simulator stepped twice from the same state by the same action {int(actions[row])} and came to "
            f"different ends (row {row}); search keeps one outcome of a step for good, so let what is drawn follow "
            "from the state, or offer `outcomes` with their probabilities in the place of `step`"
        )


def stepped(simulator: Simulator, states: Any, actions: np.ndarray) -> Transition:
    """Returns what the simulator's step gives, one new state for each action."""
    if hasattr(simulator, "outcomes"):
        raise ConfigError("chance decides the simulator's steps (`outcomes`): use a tree method, such as 'puct'")
    found = check_step(simulator, step_of(simulator, states, actions), len(actions))
    check_steady(simulator, states, actions, found)
    return found


def step_of(simulator: Simulator, states: Any, actions: np.ndarray) -> Transition:
    """Returns what the simulator's `step` gives; only its form is checked."""
    try:
        moved = simulator.step(states, actions)
    except IndexError as error:
        raise ConfigError(
            f"below the roots: the simulator cannot step a state it stepped to before ({error})"
        ) from error
    answered(moved, Transition, "step")
    return moved


def check_step(simulator: Simulator, moved: Transition, rows: int) -> Transition:
    """Returns a step of so many states, with its rewards and ends as arrays; raises `ConfigError` for what is none."""
    if count(moved.states) != rows:
        raise ConfigError(f"the simulator's step gave {count(moved.states)} states for {rows} actions")
    check_range(simulator, moved.states, "after a step")
    return arrays_of(moved)


def arrays_of(moved: Any) -> Transition:
    """Returns a step with its rewards and ends as arrays."""
    reward = moved.reward
    if type(reward) is not np.ndarray or reward.dtype != np.float32:
        reward = as_array("reward", reward, np.float64)
    ended = as_array("terminated", moved.terminated, np.bool_)
    return Transition(moved.states, reward, ended, getattr(moved, "to_play", None))
