"""What passes between a planner and whoever evaluates for it: the leaves asked for, and what is told of them.

Letters: L leaves, D steps of a path, A actions, E evaluations, C outcomes of all steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import FINITE, Checked, as_array, check_evaluation, first_beyond
from treegym.search.kernels.codes import INSTEAD
from treegym.search.kernels.rounds import Told, Way
from treegym.search.simulator import Evaluation
from treegym.search.tree import CHANCE, Nodes

__all__ = ["SLOT", "UNTOLD", "Chances", "Leaves", "Told", "Way", "check_rows", "checked", "join", "with_chances"]

SLOT = (1 << INSTEAD) - 1  # of an entry of a path, the slot that was walked
UNTOLD = -2  # row of a leaf of which nothing was told yet


class Leaves(NamedTuple):
    """Leaves that wait for the world and the evaluator: step ``parents`` by ``actions``, judge what comes out."""

    roots: np.ndarray  # [L] int32, row of the batch the leaf belongs to
    parents: np.ndarray  # [L] int64, number of the parent's state: root * capacity + node
    actions: np.ndarray  # [L] int32
    depths: np.ndarray  # [L] int32, steps from the root
    outcomes: np.ndarray  # [L] int32, which outcome of the step is asked for, -1 where all are still to be told


class Chances(NamedTuple):
    """With which probability each outcome of L steps comes about, as `Leaves.outcomes` asked."""

    probability: np.ndarray  # [C] float32, those of the first step, then those of the second ...
    many: np.ndarray  # [L] int32, how many outcomes a step has
    outcome: np.ndarray  # [L] int32, which of them is told


def checked(
    count: int,
    owners: np.ndarray,
    actions: int,
    reward: Any,
    terminated: Any,
    second: np.ndarray,
    evaluation: Evaluation | None,
    link: Any,
    trees: Nodes,
) -> Told:
    """Returns what was told of `count` leaves as arrays a kernel may read, or raises `ConfigError`."""
    reward = as_array("reward", reward, np.float32)
    terminated = as_array("terminated", terminated, np.bool_)
    linked = np.full(count, -1, np.int32) if link is None else np.ascontiguousarray(link, np.int32)
    for name, array in (("reward", reward), ("terminated", terminated), ("link", linked)):
        check_rows(name, array, count)
    if (row := first_beyond(reward)) >= 0:
        raise ConfigError(f"the reward of leaf {row} (root {owners[row]}) is {reward[row]}; {FINITE}")
    if link is not None and count and (linked >= trees.size[owners[:count], 0]).any():
        raise ConfigError("a leaf is linked to a node that its tree does not have")
    judged = ~terminated & (linked < 0)
    number = int(judged.sum())
    if number and evaluation is None:
        raise ConfigError(f"{number} leaves are not terminal and were told without an evaluation")
    rows = np.arange(count) if number == count else np.where(judged, np.cumsum(judged) - 1, -1)
    if evaluation is None or not number:
        shape = (1, actions)
        evaluation = Evaluation(np.zeros(shape, np.float32), np.zeros(1, np.float32), np.ones(shape, np.bool_))
    elif type(evaluation) is not Checked or len(evaluation.value) != number:
        evaluation = check_evaluation(evaluation, number, actions, "below the roots")
    judgement = evaluation.prior_logits, evaluation.value, evaluation.legal
    return Told(reward, terminated, second, rows, linked, *judgement, *_certain(count))


def check_rows(name: str, array: np.ndarray, count: int) -> None:
    """Raises `ConfigError` for an array that does not hold a number for each of so many leaves."""
    if array.shape != (count,):
        raise ConfigError(f"the simulator's {name} has shape {array.shape}; expected {(count,)}")


def _certain(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns what is told of chance where it decides nothing."""
    none = np.zeros(count, np.int32)
    return none, np.zeros(count, np.int64), none, np.zeros(1, np.float32)


def with_chances(told: Told, chances: Chances, trees: Nodes, way: Way) -> Told:
    """Returns the same with the outcomes of the moves that were made for the first time."""
    rows, many = np.arange(len(told.reward)), chances.many.astype(np.int32)
    last = way.paths[0, rows, way.lengths[rows] - 1]
    made = trees.status[way.owners[rows], last] & CHANCE > 0
    return told._replace(
        outcomes=np.where(made, 0, many).astype(np.int32),
        first=np.cumsum(many, dtype=np.int64) - many,
        outcome=chances.outcome.astype(np.int32),
        chances=as_array("probability", chances.probability, np.float32),
    )


def join(kept: Told | None, count: int, leaves: np.ndarray, told: Told) -> Told:
    """Returns what is known of `count` leaves after some more of them were told; rows are UNTOLD for the others."""
    if kept is None:
        shape = (count, told.logits.shape[1])
        kept = Told(
            np.zeros(count, np.float32), np.zeros(count, np.bool_), np.zeros(count, np.bool_),
            np.full(count, UNTOLD, np.int64), np.full(count, -1, np.int32), np.zeros(shape, np.float32),
            np.zeros(count, np.float32), np.ones(shape, np.bool_), *_certain(count),
        )  # fmt: skip
    if len(leaves) and not (leaves.min() >= 0 and leaves.max() < count):
        raise ConfigError(f"a leaf told is out of range; {count} leaves were asked for")
    if len(np.unique(leaves)) != len(leaves) or (kept.row[leaves] != UNTOLD).any():
        raise ConfigError("a leaf was told twice")
    judged = told.row >= 0
    at, rows = leaves[judged], told.row[judged]
    kept.reward[leaves], kept.terminal[leaves], kept.link[leaves] = told.reward, told.terminal, told.link
    kept.row[leaves], kept.second[leaves] = np.where(judged, leaves, -1), told.second
    kept.logits[at], kept.value[at], kept.legal[at] = told.logits[rows], told.value[rows], told.legal[rows]
    return kept
