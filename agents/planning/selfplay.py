"""Self-play: episodes whose every move is searched, and what there is to learn from each position.

Letters: B lanes, E episodes, N positions, K children.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from treegym.agents.advantages import discounted_returns
from treegym.agents.alphazero_settings import AlphaZeroSettings
from treegym.agents.planning.memory import path_memory
from treegym.agents.planning.planners import ClosedPlanner, WorldPlanner
from treegym.agents.play.episodes import play
from treegym.agents.play.exploring import InnerStarts
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.world import PlayStep, World
from treegym.agents.policies.base import MEMORY, ChildScorer
from treegym.rewards.sees import Sees
from treegym.search import SearchResult, Session

__all__ = ["Searched", "SelfPlay", "n_step_returns", "sampled"]


class Searched(NamedTuple):
    """Whole episodes whose moves were searched, one after the other."""

    positions: dict[str, np.ndarray]  # each [N, ...]: "obs.*", "policy", "q", "target", "state"
    rewards: np.ndarray  # [N] float64
    lengths: np.ndarray  # [E] int64
    correct: np.ndarray  # [E] float32: 1, 0, or NaN where the env does not say


class SelfPlay:
    """Plays a world by search.

    Args:
        world: where.
        planner: who searches there.
        scorer: whose observations are kept to learn from.
        rng: where randomness comes from.
        settings: AlphaZero's.
        on_step: called after every step with the number of active lanes and what came of it.
    """

    def __init__(
        self,
        world: World,
        planner: WorldPlanner,
        scorer: ChildScorer,
        rng: np.random.Generator,
        settings: AlphaZeroSettings,
        on_step: Callable[[int, PlayStep], None],
    ) -> None:
        self.world, self.planner, self.scorer, self.rng, self.settings = world, planner, scorer, rng, settings
        self.on_step = on_step
        self._going: Session | None = None  # searches that go on from move to move
        self._starts: InnerStarts | None = None

    def round(self, size: int, policy: Any) -> Searched:
        """Plays one episode in each of the first `size` lanes; `policy` is what the planner asks."""
        s, world, planner = self.settings, self.world, self.planner
        lanes = world.num_envs
        roots = world.roots()
        chosen = None
        if roots is not None:
            chosen = self.rng.choice(roots, size=lanes, replace=lanes > len(roots))
        world.reset(np.ones(lanes, np.bool_), roots=chosen, seed=int(self.rng.integers(2**31)))
        if isinstance(planner, ClosedPlanner) and s.exploring_starts:
            self._starts = self._starts or InnerStarts(world)
            self._starts.scatter(size, s.exploring_starts, self.rng)
        planner.prepare(policy, None if chosen is None else chosen[:size])
        self._going = None
        seen: list[dict[str, np.ndarray]] = []
        picked = np.zeros(0, np.int64)
        behind = np.zeros(size, np.float32)  # [E], value of where each episode was cut off

        def choose(who: np.ndarray) -> np.ndarray:
            nonlocal picked
            states = planner.states(who)
            rows = self._rows(who, states)
            result = self._search(states)
            picked = result.action.astype(np.int64)
            if len(seen) < s.temperature_moves and s.temperature > 0:
                picked = sampled(result.policy, s.temperature, self.rng)
            plain = isinstance(states, np.ndarray) and states.dtype != object
            seen.append(
                rows
                | {"picked": picked}
                | {"policy": result.policy.astype(np.float32), "q": result.q, "value": result.value}
                | {"state": states.astype(np.int64) if plain else np.full(len(who), -1)}
            )
            return picked

        def stepped(who: np.ndarray, ended: np.ndarray, outcome: PlayStep) -> None:
            cut = np.flatnonzero(ended & outcome.truncated & ~outcome.terminated)
            if len(cut):
                behind[cut] = policy.infer(self._seen(cut, planner.states(cut), self.scorer.needs))[1]
            if s.reuse_tree:
                self._move(who, picked, ~ended[who])
            self.on_step(len(who), outcome)

        played = play(world, size, choose, stepped)
        positions = {key: played.ordered([part[key] for part in seen]) for key in seen[0]}
        positions["target"] = self._targets(played.rewards, positions.pop("value"), played.lengths, behind)
        picked = positions.pop("picked")
        if s.selfplay_sees == Sees.VALUE:  # such a search only repeats what the critic says: returns are news
            positions["q"] = np.full_like(positions["q"], np.nan)
            positions["q"][np.arange(len(picked)), picked] = positions["target"]
        return Searched(positions, played.rewards, played.lengths, played.success)

    def _rows(self, who: np.ndarray, states: Any) -> dict[str, np.ndarray]:
        """Returns what is to be remembered of what lanes see."""
        rows = self._seen(who, states, self.scorer.needs)
        return {f"obs.{key}": array for key, array in rows.items()}

    def _seen(self, who: np.ndarray, states: Any, needs: tuple[str, ...] | None) -> dict[str, np.ndarray]:
        """Returns what lanes see, as far as it is needed."""
        rows = dict(self.world.observe(who, needs))
        tree = self.world.tree_world if isinstance(self.world, LanesWorld) else None
        if self.scorer.memory and tree is not None:
            rows[MEMORY] = path_memory(tree.tree, states)
        return rows

    def _search(self, states: Any) -> SearchResult:
        s, planner = self.settings, self.planner
        if self._going is not None:
            return planner.run(self._going)
        asked: dict[str, Any] = {"method": s.method, "num_simulations": s.num_simulations, **s.options(explore=True)}
        asked["seed"] = int(self.rng.integers(2**31))
        if not s.reuse_tree:
            return planner.search(states, **asked)
        self._going = planner.session(states, **asked)
        return planner.run(self._going)

    def _move(self, who: np.ndarray, actions: np.ndarray, stay: np.ndarray) -> None:
        """Takes the trees of the lanes that go on along."""
        assert self._going is not None
        if stay.any():
            states = self.planner.states(who[stay])
            self.planner.move(self._going, actions, stay, states, seed=int(self.rng.integers(2**31)))

    def _targets(
        self, rewards: np.ndarray, searched: np.ndarray, lengths: np.ndarray, behind: np.ndarray
    ) -> np.ndarray:
        s = self.settings
        if s.value_target == "n_step":
            return n_step_returns(rewards, searched, lengths, n=s.n_step, gamma=s.gamma, behind=behind)
        if not behind.any():
            return discounted_returns(rewards, gamma=s.gamma, lengths=lengths)
        paid = rewards.copy()
        paid[lengths.cumsum() - 1] += s.gamma * behind  # an episode that was cut off goes on with what is expected
        return discounted_returns(paid, gamma=s.gamma, lengths=lengths)


def sampled(policy: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Returns moves drawn from pi ** (1 / temperature) ``[B] int64``."""
    running = (policy.astype(np.float64) ** (1.0 / temperature)).cumsum(1)
    return (running > rng.random((len(policy), 1)) * running[:, -1:]).argmax(1)


def n_step_returns(
    rewards: np.ndarray,
    values: np.ndarray,
    lengths: np.ndarray,
    *,
    n: int,
    gamma: float,
    behind: np.ndarray | None = None,
) -> np.ndarray:
    """Returns r_t + ... + gamma^(n-1) r_{t+n-1} + gamma^n v_{t+n} within each episode ``[N] float32``.

    ``behind [E]`` is the value of where each episode was cut off: 0, as unless given, where it ended.
    """
    out = np.zeros(len(rewards), np.float64)
    start = 0
    for episode, length in enumerate(lengths.tolist()):
        last = start + length
        for t in range(start, last):
            end = min(t + n, last)
            after = values[end] if end < last else 0.0 if behind is None else behind[episode]
            out[t] = (rewards[t:end] * gamma ** np.arange(end - t)).sum() + gamma ** (end - t) * after
        start = last
    return out.astype(np.float32)
