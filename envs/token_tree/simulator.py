"""A closed token tree as a world to plan in: flat arrays for the closed kernel, and the simulator protocol.

What a planner may know is said once, by ``planner_sees``: "rewards" (the default) tells it only the reward terms that a
real deployment would have, never the verdict; "verifier" tells it everything, as where a checker such as a unit test
exists. Letters: N nodes, B states, K children.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.search import Evaluation, SearchResult, Transition, search, search_closed

if TYPE_CHECKING:
    from treegym.tree.token_tree import TokenTree

__all__ = ["DEPLOYABLE", "ClosedTree", "visible_reward"]

# Reward terms that need neither the reference answer nor the verdict.
DEPLOYABLE = frozenset(
    {
        "diversity",
        "judge",
        "kl",
        "length",
        "lmgt",
        "loglikelihood",
        "perplexity",
        "reward_model",
        "similarity",
        "soft_overlong",
    }
)
_SEES = ("rewards", "verifier")


def visible_reward(table: Any, nodes: np.ndarray, *, planner_sees: str = "rewards") -> np.ndarray:
    """Returns what a planner is told that entering `nodes` pays, float32 [B].

    Args:
        table: a `treegym.rewards` table.
        nodes: int [B].
        planner_sees: "rewards" (deployable terms only) or "verifier" (the full reward).
    """
    if planner_sees not in _SEES:
        raise ConfigError(f"planner_sees is {planner_sees!r}.{suggest(str(planner_sees), _SEES)}")
    table.ensure(nodes)
    if planner_sees == "verifier":
        return np.asarray(table.total)[nodes].astype(np.float32)
    columns = [t for t, name in enumerate(table.names) if name in DEPLOYABLE and table.weights[t] != 0]
    if not columns:
        return np.zeros(len(nodes), np.float32)
    weights = np.asarray(table.weights)[columns]
    return (table.vector(nodes)[:, columns] @ weights).astype(np.float32)


class ClosedTree:
    """A closed tree with a policy and a value, each a table over the nodes or a callable over states.

    With tables, `search` runs whole searches in one kernel; with a callable it goes through the simulator protocol.
    Either way the results are the same.
    """

    def __init__(
        self,
        tree: TokenTree,
        *,
        reward: np.ndarray,
        terminal: np.ndarray,
        policy: np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None,
        value: np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None,
        num_actions: int | None = None,
    ) -> None:
        """Makes the world.

        Args:
            tree: a closed tree.
            reward: float [N], what the planner is told that entering a node pays (see `visible_reward`).
            terminal: bool [N], where episodes end.
            policy: logits [N] of each node among its siblings, or ``policy(states [B]) -> logits [B, K]``; the
                primary's own log-probabilities unless given.
            value: values [N], or ``value(states [B]) -> [B]``; 0 unless given.
            num_actions: K; the widest node's children unless given.
        """
        size = tree.size
        self.first_child = np.asarray(tree.first_child[:size], np.int32)
        self.child_count = np.asarray(tree.child_count[:size], np.uint16)
        self.reward = np.ascontiguousarray(reward, np.float32)
        self.terminal = np.ascontiguousarray(terminal, np.bool_) | (self.child_count == 0)
        for name, array in (("reward", self.reward), ("terminal", self.terminal)):
            if array.shape != (size,):
                raise ConfigError(f"{name} has shape {array.shape}; the tree has {size} nodes")
        widest = int(self.child_count.max(initial=1))
        self.num_actions = widest if num_actions is None else int(num_actions)
        if self.num_actions < widest:
            raise ConfigError(f"num_actions is {num_actions}, but a node has {widest} children")
        self.policy = np.asarray(tree.prior[:size], np.float32) if policy is None else policy
        self.value = np.zeros(size, np.float32) if value is None else value
        for name, part in (("policy", self.policy), ("value", self.value)):
            if isinstance(part, np.ndarray) and part.shape != (size,):
                raise ConfigError(f"the {name} table has shape {part.shape}; the tree has {size} nodes")

    def expand(self, states: np.ndarray) -> Evaluation:
        """Returns prior logits, value and legal mask of nodes."""
        slots = np.arange(self.num_actions)
        legal = slots < self.child_count[states].astype(np.int64)[:, None]
        if callable(self.policy):
            logits = np.asarray(self.policy(states), np.float32)
        else:
            child = np.where(legal, self.first_child[states].astype(np.int64)[:, None] + slots, 0)
            logits = np.where(legal, self.policy[child], np.float32(0.0)).astype(np.float32)
        value = self.value(states) if callable(self.value) else self.value[states]
        return Evaluation(logits, np.asarray(value, np.float32), legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        """Returns the chosen children, what entering them pays, and whether they end the episode."""
        bad = np.flatnonzero((actions < 0) | (actions >= self.child_count[states]))
        if len(bad):
            row = int(bad[0])
            raise ConfigError(
                f"action {int(actions[row])} at node {int(states[row])}, which has "
                f"{int(self.child_count[states[row]])} children"
            )
        after = self.first_child[states].astype(np.int64) + actions
        return Transition(after, self.reward[after], self.terminal[after])

    def search(
        self, states: np.ndarray, *, method: str = "gumbel", num_simulations: int, seed: int = 0, **options: Any
    ) -> SearchResult:
        """Plans from nodes; options as in `treegym.search.search`."""
        from treegym.search.settings import TREE_RULES

        if method not in TREE_RULES or callable(self.policy) or callable(self.value):
            return search(
                self, np.asarray(states), method=method, num_simulations=num_simulations, seed=seed, **options
            )
        return search_closed(
            first_child=self.first_child,
            child_count=self.child_count,
            terminal=self.terminal,
            reward=self.reward,
            prior_logits=self.policy,
            value=self.value,
            roots=states,
            num_actions=self.num_actions,
            method=method,
            num_simulations=num_simulations,
            seed=seed,
            **options,
        )
