"""Rounds of a search over a world of arrays, with next to nothing between two calls of the evaluator.

They do what `Session.step` does, to the last bit, where nothing unusual is asked for: one leaf per root, states in one
array, one player, no chance. What a simulator gives is taken as it comes where it has the dtypes and shapes that
kernels read, and goes through the usual checks where it has not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.search.checks import as_array, check_evaluation, check_step, judgement_of, step_of
from treegym.search.planner import Planner
from treegym.search.simulator import Evaluation, Simulator, Transition
from treegym.search.states import StateStore, take
from treegym.search.told import Told, check_rows, checked

__all__ = ["LeanRounds"]

_NUMBERS, _TRUTHS = np.dtype(np.float32), np.dtype(np.bool_)


def fits(array: Any, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Returns whether kernels can read an array as it is."""
    return type(array) is np.ndarray and array.dtype == dtype and array.shape == shape and array.flags.c_contiguous


class LeanRounds:
    """Rounds of one run; of no use once the trees have moved."""

    @staticmethod
    def suit(planner: Planner, store: StateStore) -> bool:
        """Returns whether a search is of the kind that these rounds are for."""
        options = planner.options
        usual = options.leaves == 1 and options.players == 1 and not options.outcomes and not options.transpositions
        return usual and type(store.data) is np.ndarray and not store.data.dtype.hasobject

    def __init__(self, simulator: Simulator, planner: Planner, store: StateStore) -> None:
        """Makes room for a leaf per root."""
        self.simulator, self.planner, self.store = simulator, planner, store
        size = planner.size
        self._parents, self._actions = np.empty(size, np.int64), np.empty(size, np.int32)
        self._none, self._rows, self._unlinked = np.zeros(size, np.int32), np.arange(size), np.full(size, -1, np.int32)
        self._first, self._no = np.zeros(size, np.int64), np.zeros(size, np.bool_)
        shape = (1, planner.num_actions)
        self._nothing = np.zeros(shape, np.float32), np.zeros(1, np.float32), np.ones(shape, np.bool_)
        self._chances = np.zeros(1, np.float32)
        self._bounded = getattr(simulator, "num_states", None) is not None

    def step(self) -> tuple[int, bool]:
        """Evaluates one round of leaves; returns how many there were and whether the evaluator was called.

        If that fails, the round was never begun.
        """
        count = self.planner.ask_named(self._parents, self._actions)
        if not count:
            return 0, False
        try:
            return count, self._evaluate(count)
        except BaseException:
            self.planner.take_back()
            raise

    def _evaluate(self, count: int) -> bool:
        planner, simulator = self.planner, self.simulator
        states = self.store.data[self._parents[:count]]
        actions = self._actions[:count].copy()  # whoever steps may keep what it is given
        moved = step_of(simulator, states, actions)
        after, reward, ended = moved.states, moved.reward, moved.terminated
        usual = type(moved) is Transition and fits(reward, _NUMBERS, (count,)) and fits(ended, _TRUTHS, (count,))
        if self._bounded or not usual or type(after) is not np.ndarray or after.shape != states.shape:
            after, reward, ended, _ = check_step(simulator, moved, len(actions))
            reward, ended = as_array("reward", reward, np.float32), as_array("terminated", ended, np.bool_)
            check_rows("reward", reward, count)
            check_rows("terminated", ended, count)
        over = int(np.count_nonzero(ended))
        rows, judged = self._rows[:count], count - over
        if over:
            rows = np.where(ended, -1, np.cumsum(~ended) - 1)
        judgement: tuple[Any, Any, Any] = self._nothing
        if judged:
            judgement = self._judged(take(after, np.flatnonzero(~ended)) if over else after, judged)
        told = Told(
            reward, ended, self._no[:count], rows, self._unlinked[:count], *judgement,
            self._none[:count], self._first[:count], self._none[:count], self._chances,
        )  # fmt: skip
        numbers = planner.tell_lean(told)
        if numbers is None:  # says what is wrong with them
            checked(
                count, planner.owners, planner.num_actions, reward, ended, told.second,
                Evaluation(*judgement) if judged else None, None, planner.trees,
            )  # fmt: skip
            raise AssertionError("the kernel found a number that cannot be used, the checks none")
        if type(after) is np.ndarray and after.dtype == self.store.data.dtype and after.shape == states.shape:
            self.store.data[numbers] = after
        else:
            self.store.put(numbers, after)
        return judged > 0

    def _judged(self, states: Any, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        given = judgement_of(self.simulator, states, "below the roots")
        shape = (count, self.planner.num_actions)
        logits, value, legal = given.prior_logits, given.value, given.legal
        if fits(logits, _NUMBERS, shape) and fits(value, _NUMBERS, (count,)) and fits(legal, _TRUTHS, shape):
            return logits, value, legal
        checked_now = check_evaluation(given, *shape, "below the roots")
        return checked_now.prior_logits, checked_now.value, checked_now.legal
