"""Steps that chance decides: the outcomes of a move, each with its probability.

A world of chance offers ``outcomes(states, actions)`` in the place of ``step``, and says how many there are at most
(``num_outcomes``). Search then keeps a node for every move made, goes on into the outcome that is furthest behind its
probability, and takes the expectation over the outcomes it has seen.

Letters: L moves, C outcomes of all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import as_array, check_range, positive, whole_numbers
from treegym.search.simulator import Outcomes, Transition
from treegym.search.states import count, names_of, take
from treegym.search.told import Chances

__all__ = ["Drawn", "draw", "most_outcomes"]

_EXACT = 1e-4  # how far from 1 probabilities may sum to: they may come as float32, many of them


class Drawn(NamedTuple):
    """One outcome of each move."""

    moved: Transition
    chances: Chances


def most_outcomes(simulator: Any) -> int:
    """Returns how many outcomes a step has at most, 0 where a step has but one, which `step` gives."""
    return positive("num_outcomes", simulator.num_outcomes) if hasattr(simulator, "outcomes") else 0


def draw(simulator: Any, states: Any, actions: np.ndarray, asked: np.ndarray) -> Drawn:
    """Returns outcome ``asked[i]`` of each move, the likeliest where it is -1; unusable ones raise `ConfigError`."""
    given: Outcomes = simulator.outcomes(states, actions)
    row, probability = _checked(given, len(actions), most_outcomes(simulator))
    check_range(simulator, given.states, "among the outcomes")
    many = np.bincount(row, minlength=len(actions)).astype(np.int32)
    first = np.cumsum(many) - many
    likeliest = np.array([part.argmax() for part in np.split(probability, first[1:])], np.int32)
    outcome = np.where(asked < 0, likeliest, asked).astype(np.int32)
    wrong = np.flatnonzero(outcome >= many)
    if len(wrong):
        raise ConfigError(
            f"row {int(wrong[0])} has {int(many[wrong[0]])} outcomes, and had more when it was asked for before; "
            "a move must always have the same outcomes, in the same order"
        )
    chosen = first + outcome
    turn = None if given.to_play is None else np.asarray(given.to_play)[chosen]
    reward, ended = as_array("reward", given.reward, np.float64), as_array("terminated", given.terminated, np.bool_)
    moved = Transition(take(given.states, chosen), reward[chosen], ended[chosen], turn)
    return Drawn(moved, Chances(probability.astype(np.float32), many, outcome))


def _checked(given: Any, moves: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which move each outcome belongs to, int64 [C], and its probability, float64 [C]."""
    if not all(hasattr(given, name) for name in ("states", "reward", "terminated", "probability", "row")):
        raise ConfigError(
            f"the simulator's outcomes gave a {type(given).__name__}; it must give treegym.search.Outcomes"
        )
    total = count(given.states)
    row = whole_numbers("the outcomes' row", given.row, np.int64)
    probability = as_array("probability", given.probability, np.float64)
    for name, array in (("reward", given.reward), ("terminated", given.terminated), ("probability", probability),
                        ("row", row), ("to_play", given.to_play)):  # fmt: skip
        if array is not None and np.shape(array) != (total,):
            raise ConfigError(f"the outcomes' {name} has shape {np.shape(array)}; expected {(total,)}, one per state")
    if (wrong := np.flatnonzero(~((row >= 0) & (row < moves)))).size or (np.diff(row) < 0).any():
        what = f"is {int(row[wrong[0]])} at outcome {int(wrong[0])}" if wrong.size else "is not in rising order"
        raise ConfigError(
            f"the outcomes' row {what}; it says which of the {moves} moves an outcome belongs to, in order"
        )
    if (wrong := np.flatnonzero(~((probability > np.finfo(np.float32).tiny) & (probability <= 1.0 + _EXACT)))).size:
        at = int(wrong[0])
        raise ConfigError(
            f"the outcomes' probability is {probability[at]} at outcome {at} (row {int(row[at])}); it must be above 0 "
            "and at most 1: leave out what cannot happen"
        )
    many = np.bincount(row, minlength=moves)
    if (wrong := np.flatnonzero((many < 1) | (many > most))).size:
        at = int(wrong[0])
        raise ConfigError(f"row {at} has {int(many[at])} outcomes; expected from 1 to {most} (`num_outcomes`)")
    total_of = np.bincount(row, weights=probability, minlength=moves)
    if (wrong := np.flatnonzero(np.abs(total_of - 1.0) > _EXACT)).size:
        at = int(wrong[0])
        raise ConfigError(f"the outcomes' probability sums to {total_of[at]:.6g} for row {at}; it must sum to 1")
    seen: dict[Any, int] = {}
    named = zip(row.tolist(), names_of(given.states), np.asarray(given.reward).tolist(), strict=True)
    for at, outcome in enumerate(named):
        if seen.setdefault(outcome, at) != at:
            raise ConfigError(
                f"outcomes {seen[outcome]} and {at} (row {outcome[0]}) are the same state for the same reward; give it "
                "once, with the sum of the probabilities"
            )
    return row, probability / total_of[row]
