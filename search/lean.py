"""Rounds of a search over a world of arrays, with next to nothing between two calls of the evaluator.

They do what `Session.step` does, to the last bit, where nothing unusual is asked for: one leaf per root, states in one
array, one player, no chance. One kernel tells what became of a round's leaves and asks for the next ones. What a
simulator gives is taken as it comes where it has the dtypes and shapes that kernels read, and goes through the usual
checks where it has not.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from treegym.search.checks import as_array, check_evaluation, check_step, judgement_of, step_of
from treegym.search.kernels.rounds import PROBLEM, REFUSED, WORDS, pack, turn
from treegym.search.output import call
from treegym.search.planner import Planner
from treegym.search.simulator import Evaluation, Simulator
from treegym.search.states import StateStore
from treegym.search.told import check_rows, checked

__all__ = ["LeanRounds"]

_TRUTHS = np.dtype(np.bool_)


class LeanRounds:
    """Rounds of one run; of no use once the trees have moved.

    Attributes:
        calls: how often the evaluator was called so far.
    """

    @staticmethod
    def suit(planner: Planner, store: StateStore) -> bool:
        """Returns whether a search is of the kind that these rounds are for."""
        options = planner.options
        usual = options.leaves == 1 and options.players == 1 and not options.outcomes and not options.transpositions
        return usual and type(store.data) is np.ndarray and not store.data.dtype.hasobject

    def __init__(self, simulator: Simulator, planner: Planner, store: StateStore) -> None:
        """Makes room for a leaf per root."""
        self.simulator, self.planner, self.store = simulator, planner, store
        self.calls = 0
        self._turn = turn(planner.settings.rule, planner.plain)
        self._round = planner.round()
        self._block: np.ndarray | None = None
        shape = (1, planner.num_actions)
        self._nothing = Evaluation(np.zeros(shape, np.float32), np.zeros(1, np.float32), np.ones(shape, np.bool_))
        self._bounded = getattr(simulator, "num_states", None) is not None

    def run(self, calls: int | None = None, until: float | None = None) -> None:
        """Goes on until the simulations are spent, `calls` of the evaluator were made, or the clock shows `until`.

        Whatever is raised on the way, the round that it was raised in was never begun.
        """
        planner = self.planner
        try:
            self._rounds(calls, until)
        except BaseException:
            planner.left_off(self._round)
            planner.take_back()
            raise
        planner.left_off(self._round)

    def _rounds(self, calls: int | None, until: float | None) -> None:
        size, round_ = self.planner.size, self._round
        block, rounds_left = self._with_room()
        actions = np.empty(size, np.int32)
        count = self._turn(block, 1, actions, self._nothing.value, self._nothing.legal[0], *self._nothing[:3])
        while count > 0:
            if rounds_left == 0:
                block, rounds_left = self._with_room()
            rounds_left -= 1
            data = self.store.data
            if size == 1:
                parent = round_.parents[0]
                states = data[parent : parent + 1].copy()  # whoever steps may keep what it is given
            else:
                states, actions = data[round_.parents[:count]], actions[:count]
            moved = step_of(self.simulator, states, actions)
            after, reward, ended = moved.states, moved.reward, moved.terminated
            plain = type(after) is np.ndarray and after.shape == states.shape and after.dtype == data.dtype
            if self._bounded or not plain or type(ended) is not np.ndarray or ended.dtype != _TRUTHS:
                after, reward, ended, _ = check_step(self.simulator, moved, count)
                reward, ended = as_array("reward", reward, np.float32), as_array("terminated", ended, np.bool_)
                plain = False
            judgement = self._judged(after, ended, count)
            onward = (calls is None or self.calls < calls) and (until is None or time.monotonic() < until)
            actions = np.empty(size, np.int32)
            try:
                following = self._turn(block, onward, actions, reward, ended, *judgement[:3])
            except TypeError:  # arrays of another kind
                following = REFUSED
            if following < 0:
                following = self._told_in_full(following, block, onward, actions, reward, ended, judgement, count)
            if not plain:
                self.store.put(round_.numbers[:count], after)
            elif size == 1:
                number = round_.numbers[0]
                data[number : number + 1] = after
            else:
                data[round_.numbers[:count]] = after
            count = following

    def _with_room(self) -> tuple[np.ndarray, int]:
        """Returns the round under one address, and how many rounds there are surely paths for."""
        way, rounds = self.planner.room_below(int(self._round.waiting[1]))
        if self._block is None or way is not self._round.way:
            self._round = self._round._replace(way=way)
            self._block = np.empty(WORDS, np.int64)
            call(pack, "round", self._block, self._round)
        return self._block, rounds

    def _judged(self, after: Any, ended: np.ndarray, count: int) -> Evaluation:
        """Returns what the evaluator says of the states that are no ends."""
        over = ended.item() if count == 1 == ended.size else np.count_nonzero(ended)
        if over:
            if over == count:
                return self._nothing
            check_rows("terminated", ended, count)
            after = after[~ended]
        self.calls += 1
        return judgement_of(self.simulator, after, "below the roots")

    def _told_in_full(
        self, result: int, block: np.ndarray, onward: bool, actions: np.ndarray,
        reward: Any, ended: np.ndarray, judgement: Evaluation, count: int,
    ) -> int:  # fmt: skip
        """Does what the kernel would not do with what was said as it came; raises what is wrong with it."""
        planner = self.planner
        if result == REFUSED:
            reward = as_array("reward", as_array("reward", reward, np.float64), np.float32)
            check_rows("reward", reward, count)
            check_rows("terminated", ended, count)
            judged = count - int(np.count_nonzero(ended))
            if judged:
                judgement = check_evaluation(judgement, judged, planner.num_actions, "below the roots")
            result = self._turn(block, onward, actions, reward, np.ascontiguousarray(ended), *judgement[:3])
            if result == REFUSED:
                checked(
                    count, planner.owners, planner.num_actions, reward, ended, self._round.no[:count],
                    judgement if judged else None, None, planner.trees,
                )  # fmt: skip
                raise AssertionError("the kernel found a number that cannot be used, the checks none")
        if result == PROBLEM:
            planner.left_off(self._round)
            planner.raise_problem(count, "a state below root", planner.owners)
        return int(result)
