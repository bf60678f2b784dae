"""Worlds whose whole dynamics are a table, as Gymnasium's toy texts: ``P[state][action]`` lists what a move comes to.

Searches read the table instead of stepping, and where chance decides they are told the odds. Letters: S states,
A actions, C outcomes, B states asked about.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from treegym.agents.planning.doubles import layers_of, only_looks
from treegym.agents.policies.base import ChildScorer
from treegym.search import Evaluation, Outcomes, Transition

__all__ = ["Table", "TabularSimulator", "simulator_of", "table_of"]


class Table:
    """The moves of a table: outcome after outcome, those of state 0 and action 0 first.

    Args:
        moves: ``P[state][action] = [(probability, next state, reward, ended), ...]``.
        num_actions: A.
    """

    def __init__(self, moves: Any, num_actions: int) -> None:
        first, rows = [0], []
        for state in range(len(moves)):
            for action in range(num_actions):
                odds: dict[tuple[int, float, bool], float] = {}
                for probability, after, reward, ended in moves[state][action]:
                    if probability > 0:
                        key = int(after), float(reward), bool(ended)
                        odds[key] = odds.get(key, 0.0) + float(probability)
                rows += [(probability, *key) for key, probability in odds.items()]
                first.append(len(rows))
        self.num_states, self.num_actions = len(moves), num_actions
        self.first = np.array(first, np.int64)  # [S A + 1]
        self.probability = np.array([row[0] for row in rows])  # [C]
        self.after = np.array([row[1] for row in rows], np.int64)  # [C]
        self.reward = np.array([row[2] for row in rows], np.float32)  # [C]
        self.ended = np.array([row[3] for row in rows], np.bool_)  # [C]
        self.most = int(np.diff(self.first).max())  # outcomes of a move


def table_of(env: gym.Env) -> Table | None:
    """Returns the table behind an environment that shows the number of its state, or None if it has none."""
    *wrappers, inner = layers_of(env)
    moves = getattr(inner, "P", None)
    seen, chosen = inner.observation_space, inner.action_space
    fits = isinstance(seen, spaces.Discrete) and isinstance(chosen, spaces.Discrete) and seen.start == 0
    if not (fits and isinstance(moves, dict) and all(map(only_looks, wrappers))):
        return None
    if getattr(inner, "fickle_passenger", False):  # Gymnasium's taxi then does more than its table says
        return None
    if len(moves) != seen.n or any(len(moves.get(state, ())) != chosen.n for state in range(int(seen.n))):
        return None
    return Table(moves, int(chosen.n))


class TabularSimulator:
    """A table without chance as a `Simulator`: a state is its number. Each is judged once."""

    def __init__(self, table: Table, policy: ChildScorer | None) -> None:
        self.table, self.policy = table, policy
        self.num_actions, self.num_states = table.num_actions, table.num_states
        self._known = np.zeros(table.num_states, np.bool_)
        self._logits = np.zeros((table.num_states, table.num_actions), np.float32)
        self._value = np.zeros(table.num_states, np.float32)

    def expand(self, states: np.ndarray) -> Evaluation:
        new = np.unique(states[~self._known[states]])
        if len(new) and self.policy is not None:
            self._logits[new], self._value[new] = self.policy.infer({"observations": new})
        self._known[new] = True
        legal = np.ones((len(states), self.num_actions), np.bool_)
        return Evaluation(self._logits[states], self._value[states], legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        at = self.table.first[states * self.num_actions + actions]
        return Transition(self.table.after[at], self.table.reward[at], self.table.ended[at])


class ChanceSimulator(TabularSimulator):
    """A table of chance: moves come to one of several states, by odds that are told."""

    def __init__(self, table: Table, policy: ChildScorer | None) -> None:
        super().__init__(table, policy)
        self.num_outcomes = table.most

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        table, pair = self.table, np.asarray(states) * self.num_actions + actions
        many = table.first[pair + 1] - table.first[pair]
        row = np.repeat(np.arange(len(pair)), many)
        at = np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many) + table.first[pair][row]
        return Outcomes(table.after[at], table.reward[at], table.ended[at], table.probability[at], row)


def simulator_of(table: Table, policy: ChildScorer | None) -> TabularSimulator:
    """Returns the simulator that a table needs."""
    return (ChanceSimulator if table.most > 1 else TabularSimulator)(table, policy)
