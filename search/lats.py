"""LATS: language agent tree search (https://arxiv.org/abs/2310.04406).

From the root down to a state without children by argmax V + c sqrt(ln N(parent) / N); `branching` children are drawn
from the policy and judged, the best one is walked on from in the same way until it ends, and what the path is worth
counts for every state on it: V <- (V N + r) / (N + 1), N <- N + 1. A path that ended badly is reflected on: the text
that says what went wrong is shown to the evaluator with every state judged from then on.

The paper begins V at a mixture of the model's score and of self-consistency; here it is what the evaluator says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack, cast

import numpy as np

from treegym.checks import number
from treegym.errors import ConfigError
from treegym.search.checks import from_zero, positive
from treegym.search.plan import Limits, Plan
from treegym.search.simulator import Evaluation, SearchResult, Simulator, Transition

__all__ = ["lats"]


class _Reflecting:
    """A simulator that is shown what was learned from bad ends."""

    def __init__(self, simulator: Any) -> None:
        if not hasattr(simulator, "expand_with"):
            raise ConfigError(
                "reflect needs a simulator with `expand_with(states, notes)`, which judges states by what was written "
                "about bad ends"
            )
        self._simulator = simulator
        self.notes: list[tuple[str, ...]] = []  # of each state that is stepped next
        self._open: list[tuple[str, ...]] = []  # of those that did not end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulator, name)

    def step(self, states: Any, actions: np.ndarray) -> Transition:
        moved: Transition = self._simulator.step(states, actions)
        ended = np.asarray(moved.terminated)
        self._open = [note for note, over in zip(self.notes, ended, strict=True) if not over]
        return moved

    def expand(self, states: Any) -> Evaluation:
        given = self._simulator.expand_with(states, self._open) if any(self._open) else self._simulator.expand(states)
        return cast(Evaluation, given)


class _Node:
    """A judged state."""

    def __init__(
        self, number: int, parent: _Node | None, action: int, gained: float, weight: float, score: float, prior: Any
    ) -> None:
        self.number, self.parent, self.action, self.gained, self.weight = number, parent, action, gained, weight
        self.score = score  # gained + weight * value: what the path through here looks like
        self.value, self.visits = score, 1
        self.log_prior = prior  # [A] float64, None at an end
        self.children: list[_Node] = []
        self.done = prior is None  # nothing left to judge at or below
        self.depth: int = 0 if parent is None else parent.depth + 1

    def descend(self, c_explore: float) -> _Node:
        """Returns the state without children that the rule leads to."""
        node = self
        while node.children:
            log_visits = math.log(node.visits)
            open_ = [child for child in node.children if not child.done]
            node = max(open_, key=lambda child: child.value + c_explore * math.sqrt(log_visits / child.visits))
        return node

    def count(self, worth: float) -> None:
        """Counts what a path through here was worth, up to the root."""
        node: _Node | None = self
        while node is not None:
            node.value = (node.value * node.visits + worth) / (node.visits + 1)
            node.visits += 1
            node.done = node.done or (bool(node.children) and all(child.done for child in node.children))
            node = node.parent


def lats(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    branching: int = 5,
    horizon: int = 64,
    c_explore: float = 1.0,
    reflect: Callable[[Any, np.ndarray], Sequence[str]] | None = None,
    satisfied: float = 1.0,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Searches with LATS; plays the move that leads to the best path found.

    Args:
        branching: children drawn of a state.
        horizon: longest path; where it stops, it is worth what it looks like.
        c_explore: c of the rule.
        reflect: ``reflect(ended states, returns) -> texts``; what each says goes with every later state of its root,
            through the simulator's ``expand_with(states, notes)``.
        satisfied: a return from which on there is nothing to reflect on.
        **limits: see `treegym.search.plan.Limits`.
    """
    branching, horizon = positive("branching", branching), positive("horizon", horizon)
    c_explore = from_zero("c_explore", c_explore, 1e9)
    satisfied = number("satisfied", satisfied)
    shown = None if reflect is None else _Reflecting(simulator)
    plan = Plan(simulator if shown is None else shown, states, num_simulations, **limits)  # type: ignore[arg-type]
    given = plan.given.value.tolist()
    roots = [_Node(b, None, -1, 0.0, 1.0, given[b], plan.prior[b]) for b in range(plan.size)]
    walked = list(roots)  # from where each root's path goes on
    notes: list[tuple[str, ...]] = [()] * plan.size
    while not plan.world.spent:
        rounds: list[tuple[int, _Node, int]] = []
        for b, node in enumerate(walked):
            if plan.room(b) > 0 and not roots[b].done:
                drawn = plan.drawn(b, node.log_prior, min(branching, plan.room(b)))
                plan.tally.evaluations[b] += len(drawn)  # charged as planned, ended or not
                rounds += [(b, node, action) for action in drawn]
        if not rounds:
            break
        chosen = np.array([action for _, _, action in rounds], np.int32)
        if shown is not None:
            shown.notes = [notes[b] for b, _, _ in rounds]
        grown = plan.grow(np.array([node.number for _, node, _ in rounds]), chosen)
        for i, (b, node, action) in enumerate(rounds):
            gained = node.gained + node.weight * float(grown.reward[i])
            weight = node.weight * plan.discount
            score = gained + weight * float(grown.worth[i])
            prior = None if grown.ended[i] else grown.log_prior[i]
            child = _Node(int(grown.numbers[i]), node, action, gained, weight, score, prior)
            node.children.append(child)
            _tell(plan, b, child)
        bad: list[tuple[int, _Node]] = []
        for b, node in {b: node for b, node, _ in rounds}.items():
            best = max(node.children, key=lambda child: child.score)
            walked[b] = best
            if best.done or best.depth >= horizon:
                best.count(best.score)
                walked[b] = roots[b] if roots[b].done else roots[b].descend(c_explore)
                if best.done and best.score < satisfied:
                    bad.append((b, best))
        if reflect is not None and bad:
            said = reflect(plan.states(np.array([end.number for _, end in bad])), np.array([e.score for _, e in bad]))
            if len(said) != len(bad):
                raise ConfigError(
                    f"reflect gave {len(said)} texts for {len(bad)} ended states; one for each is expected"
                )
            for (b, _), text in zip(bad, said, strict=True):
                notes[b] = (*notes[b], text)
    _hope(plan, roots)
    return plan.result()


def _tell(plan: Plan, root: int, child: _Node) -> None:
    """Counts a new state for the move that leads to it; an end is an outcome."""
    first = child
    while first.parent is not None and first.parent.parent is not None:
        first = first.parent
    if child.done:
        plan.tally.add(root, first.action, child.score)
    else:
        plan.tally.visits[root, first.action] += 1


def _hope(plan: Plan, roots: list[_Node]) -> None:
    """Where no path has ended, lets what states look like decide."""
    for b, root in enumerate(roots):
        if np.isneginf(plan.tally.best[b]).all():
            for child in root.children:
                plan.tally.best[b, child.action] = max(child.value, plan.tally.best[b, child.action])
