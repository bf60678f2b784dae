"""AB-MCTS-A: go wider or go deeper, decided by Thompson sampling (https://arxiv.org/abs/2503.04412).

At every node either a new child is generated, by one of several arms such as teachers, or an existing child is refined.
All scores below a choice are taken as normal with unknown mean and variance under a normal-inverse-chi-squared prior;
one draw of the mean from each posterior decides. Here generating means taking the likeliest untried action of an arm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treegym.search.checks import from_zero, positive
from treegym.search.paths import CheckedWorld, Tally, log_policy, root_streams
from treegym.search.simulator import Evaluation, SearchResult, Simulator
from treegym.search.states import StateStore, count

__all__ = ["Scores", "ab_mcts"]

MEAN, KAPPA, NU, TAU2 = 0.0, 1.0, 1.0, 0.1  # the prior: mean 0 worth one score, variance 0.1 worth one score


class Scores:
    """Scores seen below one choice, and the posterior of their mean."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, score: float) -> None:
        """Takes one score in (Welford's update)."""
        self.count += 1
        change = score - self.mean
        self.mean += change / self.count
        self.squares += change * (score - self.mean)

    def posterior(self) -> tuple[float, float, float, float]:
        """Returns mean, kappa, nu and tau2 of the normal-inverse-chi-squared posterior."""
        kappa, nu = KAPPA + self.count, NU + self.count
        mean = (KAPPA * MEAN + self.count * self.mean) / kappa
        total = NU * TAU2 + self.squares + self.count * KAPPA / kappa * (self.mean - MEAN) ** 2
        return mean, kappa, nu, total / nu

    def draw(self, rng: np.random.Generator) -> float:
        """Draws a mean from the posterior."""
        mean, kappa, nu, tau2 = self.posterior()
        variance = nu * tau2 / rng.chisquare(nu)
        return float(rng.normal(mean, np.sqrt(variance / kappa)))


class _Node:
    """A judged state with the choices below it."""

    def __init__(self, number: int, log_prior: np.ndarray | None, arms: np.ndarray | None, reward: float) -> None:
        self.number, self.reward = number, reward
        self.children: dict[int, _Node] = {}
        self.below: dict[int, Scores] = {}  # by child
        self.deeper = Scores()  # all scores below existing children: what refining is worth
        self.untried: dict[int, list[int]] = {}  # by arm: actions, the likeliest first
        self.generated: dict[int, Scores] = {}  # by arm: scores of the children it generated
        if log_prior is not None:
            for action in np.argsort(-log_prior, kind="stable"):
                if np.isfinite(log_prior[action]):
                    arm = 0 if arms is None else int(arms[action])
                    self.untried.setdefault(arm, []).append(int(action))
                    self.generated.setdefault(arm, Scores())
        self.done = not self.untried  # nothing left to judge at or below this node

    def choose(self, rng: np.random.Generator) -> tuple[str, int]:
        """Returns ("generate", arm) or ("refine", action)."""
        open_children = [action for action, child in self.children.items() if not child.done]
        arms = [arm for arm, actions in self.untried.items() if actions]
        best_arm, best_draw = -1, -np.inf
        for arm in arms:
            draw = self.generated[arm].draw(rng)
            if draw > best_draw:
                best_arm, best_draw = arm, draw
        if not open_children or (arms and best_draw >= self.deeper.draw(rng)):
            return "generate", best_arm
        draws = [self.below[action].draw(rng) for action in open_children]
        return "refine", open_children[int(np.argmax(draws))]


def ab_mcts(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    seed: int = 0,
    root_ids: np.ndarray | None = None,
    discount: float = 1.0,
    arms: Callable[[Any], np.ndarray] | None = None,
    model_calls: int | None = None,
    seconds: float | None = None,
) -> SearchResult:
    """Searches with AB-MCTS-A; scores are rewards on the way + value of the new state, best in about [0, 1].

    Args:
        arms: ``arms(states) -> int [B, A]`` says which arm (teacher) each action belongs to; one arm unless given.
        model_calls: calls of the simulator's `expand` at most, the roots' not counted.
        seconds: wall-clock time; a round under way is finished.
    """
    budget, discount = positive("num_simulations", num_simulations), from_zero("discount", discount, 1.0)
    world = CheckedWorld(simulator, model_calls=model_calls, seconds=seconds)
    given = world.roots(states)
    prior = log_policy(given)
    size, actions = prior.shape
    streams = root_streams(seed, root_ids, size)
    tally = Tally(size, actions)
    store = StateStore(states, size * (budget + 1))
    store.put(np.arange(count(states)), states)
    table = arms(states) if arms is not None else None
    roots = [_Node(b, prior[b], None if table is None else table[b], 0.0) for b in range(size)]
    used = size
    for _ in range(budget):
        if world.spent:
            break
        asked: list[tuple[int, list[tuple[_Node, int]], int]] = []  # root, way to the parent, arm
        for b, root in enumerate(roots):
            if root.done:
                continue
            node = root
            way: list[tuple[_Node, int]] = []
            while True:
                kind, which = node.choose(streams[b])
                if kind == "generate":
                    action = node.untried[which].pop(0)
                    asked.append((b, [*way, (node, action)], which))
                    break
                way.append((node, which))
                node = node.children[which]
        if not asked:
            break
        parents = np.array([way[-1][0].number for _, way, _ in asked])
        chosen = np.array([way[-1][1] for _, way, _ in asked], np.int32)
        moved = world.step(store.get(parents), chosen)
        ended = moved.terminated
        numbers = np.arange(used, used + len(asked))
        used += len(asked)
        store.put(numbers, moved.states)
        alive = np.flatnonzero(~ended)
        judged: Evaluation | None = None
        if len(alive):
            below = store.get(numbers[alive])
            judged = world.expand(below)
            log_prior = log_policy(judged)
            table = arms(below) if arms is not None else None
        row = np.cumsum(~ended) - 1
        for i, (b, way, arm) in enumerate(asked):
            open_ = judged is not None and not ended[i]
            at = int(row[i])
            child = _Node(
                int(numbers[i]),
                log_prior[at] if open_ else None,
                table[at] if open_ and table is not None else None,
                float(moved.reward[i]),
            )
            worth = float(judged.value[at]) if open_ and judged is not None else 0.0
            tally.evaluations[b] += int(open_)
            _learn(way, child, arm, worth, discount, tally, b)
    return tally.result(prior)


def _learn(
    way: list[tuple[_Node, int]], child: _Node, arm: int, worth: float, discount: float, tally: Tally, root: int
) -> None:
    """Hangs the new child in and gives its score to every choice on the way, as return from that choice on."""
    node, action = way[-1]
    node.children[action] = child
    node.below[action] = Scores()
    value = child.reward + discount * worth
    node.generated[arm].add(value)
    node.below[action].add(value)
    node.done = _finished(node)
    for upper, step in reversed(way[:-1]):
        value = upper.children[step].reward + discount * value
        upper.below[step].add(value)
        upper.deeper.add(value)
        upper.done = _finished(upper)
    tally.add(root, way[0][1], value)


def _finished(node: _Node) -> bool:
    return not any(node.untried.values()) and all(child.done for child in node.children.values())
