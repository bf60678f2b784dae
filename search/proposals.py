"""Actions that are proposed anew for every state: sentences, lines of code, numbers out of a continuous range.

Where there is no list of actions, or a far too long one, a world proposes some for each state it is asked about; search
then chooses among them by their place in the list. Any method works, since for it they are actions 0, 1, 2, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from treegym.errors import ConfigError
from treegym.search.api import search
from treegym.search.checks import positive
from treegym.search.simulator import Evaluation, SearchResult, Transition

__all__ = ["Offer", "Proposals", "ProposedWorld", "Proposing", "search_proposed"]


class Proposals(NamedTuple):
    """What could be done in each of B states, and what the states are worth."""

    actions: Sequence[Sequence[Any]]  # of each state: from one to as many as the world may propose, no two the same
    log_policy: Sequence[Any]  # of each state: float [K], the policy's log-probability (or logit) of each action
    value: Any  # [B] float
    log_sampled: Sequence[Any] | None = None  # as log_policy: with which each was drawn; None: they were listed
    counts: Sequence[Any] | None = None  # as log_policy: how often each was drawn; once unless given


class Proposing(Protocol):
    """A world that proposes what could be done."""

    def propose(self, states: list[Any]) -> Proposals:
        """Proposes actions in each state and judges it."""
        ...

    def step(self, states: list[Any], actions: list[Any]) -> Transition:
        """Takes one of the actions that were proposed in each state; next states as a list. Never changes `states`."""
        ...


class Offer:
    """A state with what was proposed in it, once it was judged."""

    __slots__ = ("actions", "evaluation", "state")

    def __init__(self, state: Any) -> None:
        self.state = state
        self.actions: list[Any] | None = None
        self.evaluation: tuple[np.ndarray, float] | None = None  # logits [K] and value


class ProposedWorld:
    """A world that proposes actions, as a `Simulator`: states are lists of `Offer`, actions places in what is offered.

    Of actions drawn from a distribution beta, search's prior is pi(a) count(a) / (K beta(a)), brought to sum 1: drawn
    often or hardly at all, each weighs what the policy pi thinks of it (https://arxiv.org/abs/2104.06303).
    """

    def __init__(self, world: Proposing, *, most: int) -> None:
        """Takes the world; `most` is how many actions it proposes at most."""
        self.world, self.num_actions = world, positive("most", most)

    def roots(self, states: Sequence[Any]) -> list[Offer]:
        """Returns the states to search from."""
        return [Offer(state) for state in states]

    def expand(self, states: list[Offer]) -> Evaluation:
        new = [offer for offer in states if offer.actions is None]  # what was proposed once stays proposed
        if new:
            self._take(new, self.world.propose([offer.state for offer in new]))
        return self._known(states)

    def judged(self, states: list[Offer], given: Proposals) -> Evaluation:
        """Takes what was proposed elsewhere, such as by a server that was awaited; returns it as an evaluation."""
        self._take(states, given)
        return self._known(states)

    def _known(self, states: list[Offer]) -> Evaluation:
        shape = (len(states), self.num_actions)
        logits, legal = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        value = np.zeros(len(states), np.float32)
        for i, offer in enumerate(states):
            assert offer.evaluation is not None
            known, value[i] = offer.evaluation
            logits[i, : len(known)], legal[i, : len(known)] = known, True
        return Evaluation(logits, value, legal)

    def _take(self, offers: list[Offer], given: Proposals) -> None:
        rows = len(offers)
        for name in ("actions", "log_policy", "value", "log_sampled", "counts"):
            part = getattr(given, name)
            if part is not None and len(part) != rows:
                raise ConfigError(f"the world proposed {len(part)} rows of {name} for {rows} states")
        for i, offer in enumerate(offers):
            actions = list(given.actions[i])
            if not 1 <= len(actions) <= self.num_actions:
                raise ConfigError(
                    f"{len(actions)} actions were proposed for row {i}; expected from 1 to {self.num_actions} (`most`)"
                )
            twice = next((k for k, action in enumerate(actions) if _among(action, actions[:k])), None)
            if twice is not None:
                raise ConfigError(
                    f"action {twice} proposed for row {i} is there already; give each once, with `counts` of how often "
                    "it was drawn"
                )
            logits = _numbers(given.log_policy[i], "log_policy", i, len(actions))
            if given.log_sampled is not None:
                logits = logits - _numbers(given.log_sampled[i], "log_sampled", i, len(actions))
            if given.counts is not None:
                counts = _numbers(given.counts[i], "counts", i, len(actions))
                if (counts <= 0).any():
                    raise ConfigError(f"counts of row {i} hold {counts.min():g}; each proposed action was drawn once")
                logits = logits + np.log(counts)
            offer.evaluation = logits, float(given.value[i])
            offer.actions = actions

    def step(self, states: list[Offer], actions: np.ndarray) -> Transition:
        chosen = []
        for offer, place in zip(states, actions.tolist(), strict=True):
            assert offer.actions is not None, "a state is judged before it is stepped"
            chosen.append(offer.actions[place])
        moved = self.world.step([offer.state for offer in states], chosen)
        return Transition([Offer(state) for state in moved.states], moved.reward, moved.terminated, moved.to_play)


def search_proposed(
    world: Proposing, states: Sequence[Any], *, most: int, num_simulations: int, **options: Any
) -> tuple[SearchResult, list[Any]]:
    """Plans from each of B states; returns the result, and the action to take in each (``result.action`` is its place).

    Args:
        world: proposes actions.
        states: objects of any kind.
        most: how many actions it proposes at most.
        num_simulations: simulations per root.
        **options: as for `treegym.search.search`, such as ``method="puct"``.
    """
    proposed = ProposedWorld(world, most=most)
    offers = proposed.roots(states)
    result = search(proposed, offers, num_simulations=num_simulations, **options)
    return result, [offer.actions[place] for offer, place in zip(offers, result.action.tolist(), strict=True)
                    if offer.actions is not None]  # fmt: skip


def _numbers(given: Any, name: str, row: int, length: int) -> np.ndarray:
    found = np.asarray(given, np.float64)
    if found.shape != (length,):
        raise ConfigError(f"{name} of row {row} has shape {found.shape}; expected {(length,)}, one per action")
    if np.isnan(found).any():
        raise ConfigError(f"{name} of row {row} is NaN somewhere")
    return found


def _among(action: Any, others: list[Any]) -> bool:
    """Returns whether an action is one of others; arrays are compared by what they hold."""
    if isinstance(action, np.ndarray):
        return any(np.array_equal(action, other) for other in others)
    return action in others
