"""AB-MCTS: go wider or go deeper, decided by Thompson sampling (https://arxiv.org/abs/2503.04412).

At every node either a new child is generated or an existing child is refined. AB-MCTS-A draws once for generating, by
what its children were worth when they were generated, and once for refining, by all that was found below them; the
scores behind a choice are normal with unknown mean and variance. AB-MCTS-M takes the children as groups of one mixed
model, and a child not generated yet as one group more. Which of several arms (such as teachers) generates is decided
by what each generated anywhere in the tree. Here generating means taking the likeliest untried action of an arm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from treegym.errors import ConfigError
from treegym.search.paths import Tally
from treegym.search.plan import Limits, Plan
from treegym.search.posteriors import Mixed, Prior, Scores, mixed_draws
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["ab_mcts", "ab_mcts_m"]


class _Arms:
    """Which arm to generate by: what each has generated anywhere in a root's tree."""

    def __init__(self, prior: Prior | Mixed) -> None:
        self.prior = prior
        self.scores: dict[int, Scores] = {}

    def choose(self, open_: list[int], rng: np.random.Generator) -> int:
        """Returns one of the arms that still have something to generate, by one draw from each."""
        if len(open_) == 1:
            return open_[0]
        if isinstance(self.prior, Prior):
            return max(open_, key=lambda arm: self.of(arm).draw(rng))
        known = [arm for arm, scores in self.scores.items() if scores.count]
        if not known:
            return open_[int(rng.integers(len(open_)))]
        scores, _ = mixed_draws([self.scores[arm] for arm in known], self.prior, rng)
        draws = dict(zip(known, scores.tolist(), strict=True))
        for arm in open_:
            if arm not in draws:
                draws[arm] = mixed_draws([self.scores[other] for other in known], self.prior, rng)[1]
        return max(open_, key=draws.__getitem__)

    def of(self, arm: int) -> Scores:
        """Returns the scores of an arm."""
        if arm not in self.scores:
            self.scores[arm] = Scores(self.prior) if isinstance(self.prior, Prior) else Scores()
        return self.scores[arm]


class _Node:
    """A judged state with the choices below it."""

    def __init__(
        self, number: int, log_prior: np.ndarray | None, arms: np.ndarray | None, reward: float, prior: Prior | Mixed
    ) -> None:
        self.number, self.reward, self.prior = number, reward, prior
        self.children: dict[int, _Node] = {}
        self.below: dict[int, Scores] = {}  # by child
        self.deeper = self.scores()  # all scores below existing children: what refining is worth
        self.generated = self.scores()  # scores of the children when they were generated
        self.untried: dict[int, list[int]] = {}  # by arm: actions, the likeliest first
        if log_prior is not None:
            for action in np.argsort(-log_prior, kind="stable"):
                if np.isfinite(log_prior[action]):
                    self.untried.setdefault(0 if arms is None else int(arms[action]), []).append(int(action))
        self.done = not self.untried  # nothing left to judge at or below this node

    def scores(self) -> Scores:
        """Returns an empty account under the node's prior."""
        return Scores(self.prior) if isinstance(self.prior, Prior) else Scores()

    def choose(self, arms: _Arms, rng: np.random.Generator) -> tuple[str, int]:
        """Returns ("generate", arm) or ("refine", action)."""
        open_children = [action for action, child in self.children.items() if not child.done]
        open_arms = [arm for arm, actions in self.untried.items() if actions]
        if not open_children:
            return "generate", arms.choose(open_arms, rng)
        if isinstance(self.prior, Prior):
            if open_arms and self.generated.draw(rng) >= self.deeper.draw(rng):
                return "generate", arms.choose(open_arms, rng)
            draws = [self.below[action].draw(rng) for action in open_children]
        else:
            scores, unseen = mixed_draws(list(self.below.values()), self.prior, rng)
            named = dict(zip(self.below, scores.tolist(), strict=True))
            draws = [named[action] for action in open_children]
            if open_arms and unseen >= max(draws):
                return "generate", arms.choose(open_arms, rng)
        return "refine", open_children[int(np.argmax(draws))]


def ab_mcts(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    arms: Callable[[Any], np.ndarray] | None = None,
    prior: Prior | Mixed = Prior(),  # noqa: B008 - it cannot be changed
    **limits: Unpack[Limits],
) -> SearchResult:
    """Searches with AB-MCTS; scores are rewards on the way + value of the new state, best in about [0, 1].

    Args:
        arms: ``arms(states) -> int [B, A]`` says which arm (teacher) each action belongs to; one arm unless given.
        prior: what is assumed of scores: a `Prior` (AB-MCTS-A) or a `Mixed` model (AB-MCTS-M).
        **limits: see `treegym.search.plan.Limits`.
    """
    if not isinstance(prior, (Prior, Mixed)):
        raise ConfigError(f"prior is {prior!r}; it must be a treegym.search.posteriors.Prior, or Mixed")
    prior = prior.checked()
    plan = Plan(simulator, states, num_simulations, **limits)
    table = arms(states) if arms is not None else None
    roots = [_Node(b, plan.prior[b], None if table is None else table[b], 0.0, prior) for b in range(plan.size)]
    by_arm = [_Arms(prior) for _ in roots]
    for _ in range(plan.budget):
        if plan.world.spent:
            break
        asked: list[tuple[int, list[tuple[_Node, int]], int]] = []  # root, way to the parent, arm
        for b, root in enumerate(roots):
            if root.done:
                continue
            node = root
            way: list[tuple[_Node, int]] = []
            while True:
                kind, which = node.choose(by_arm[b], plan.streams[b])
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
        grown = plan.grow(parents, chosen)
        alive = np.flatnonzero(~grown.ended)
        table = arms(plan.states(grown.numbers[alive])) if arms is not None and len(alive) else None
        row = np.cumsum(~grown.ended) - 1
        for i, (b, way, arm) in enumerate(asked):
            open_ = not grown.ended[i]
            child = _Node(
                int(grown.numbers[i]),
                grown.log_prior[i] if open_ else None,
                table[row[i]] if open_ and table is not None else None,
                float(grown.reward[i]),
                prior,
            )
            plan.tally.evaluations[b] += int(open_)
            _learn(way, child, by_arm[b].of(arm), float(grown.worth[i]), plan.discount, plan.tally, b)
    return plan.result()


def _learn(
    way: list[tuple[_Node, int]], child: _Node, arm: Scores, worth: float, discount: float, tally: Tally, root: int
) -> None:
    """Attaches the new child and credits its score to every choice on the way, as the return from that choice on."""
    node, action = way[-1]
    node.children[action] = child
    node.below[action] = node.scores()
    value = child.reward + discount * worth
    arm.add(value)
    node.generated.add(value)
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


ab_mcts_m = functools.partial(ab_mcts, prior=Mixed())
