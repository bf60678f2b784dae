"""What search needs of a world, and what it gives back."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["Answer", "Answers", "Evaluation", "Outcomes", "SearchResult", "Simulator", "Transition"]


class Evaluation(NamedTuple):
    """A batch of states, judged by a policy and a value network, or by tables; values are the mover's."""

    prior_logits: np.ndarray  # [B, A] float32
    value: np.ndarray  # [B] float32
    legal: np.ndarray  # [B, A] bool
    to_play: np.ndarray | None = None  # [B] int, 0 or 1: who is to move, where there are two players


class Transition(NamedTuple):
    """A batch of steps in the world; rewards are the mover's."""

    states: Any  # [B] next states, in whatever form the simulator keeps them
    reward: np.ndarray  # [B] float32
    terminated: np.ndarray  # [B] bool
    to_play: np.ndarray | None = None  # [B] int, 0 or 1: who is to move next, where there are two players


class Outcomes(NamedTuple):
    """What L moves can come to, C outcomes in all, those of the first move first; rewards are the mover's."""

    states: Any  # [C]
    reward: np.ndarray  # [C] float32
    terminated: np.ndarray  # [C] bool
    probability: np.ndarray  # [C], above 0; sums to 1 over the outcomes of a move
    row: np.ndarray  # [C] int, which of the moves each belongs to, in rising order
    to_play: np.ndarray | None = None  # [C] int, as in `Transition`


class Simulator(Protocol):
    """A world that can be stepped from any state, in batches. States support ``states[index_array]``.

    A simulator whose states are numbers may say how many there are (``num_states``); they are then checked. Where
    chance decides, ``outcomes(states, actions) -> Outcomes`` takes the place of `step`, and ``num_outcomes`` says how
    many a step has at most.
    """

    num_actions: int

    def expand(self, states: Any) -> Evaluation:
        """Returns prior logits, value and legal mask of each state."""
        ...

    def step(self, states: Any, actions: np.ndarray) -> Transition:
        """Returns next states, rewards and whether each next state is terminal. Never changes `states`."""
        ...


class Answer(NamedTuple):
    """A path from a root."""

    actions: np.ndarray  # [T] int32
    states: Any  # the T states they lead to, in the simulator's form
    value: float
    ended: bool


class Answers(NamedTuple):
    """The best answers of each of B roots, the best first, no two of the same moves."""

    best: list[list[Answer]]  # ended or not
    finished: list[list[Answer]]  # those that ended


class SearchResult(NamedTuple):
    """What a search found at each of B roots."""

    action: np.ndarray  # [B] int32, the move to play
    policy: np.ndarray  # [B, A] float32, the improved policy (the training target)
    visits: np.ndarray  # [B, A] int32
    q: np.ndarray  # [B, A] float32, NaN where unvisited
    value: np.ndarray  # [B] float32, the searched value of the root
    simulations: int  # model evaluations charged to each root
    answers: Answers | None = None  # the best paths found, where they were asked for (`answers=`)
