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
from treegym.agents.planning.openings import play_openings
from treegym.agents.planning.planners import ClosedPlanner, WorldPlanner
from treegym.agents.planning.targets import followed_returns, n_step_returns, searched_worth
from treegym.agents.play.episodes import play
from treegym.agents.play.exploring import InnerStarts
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.rollout import uncounted
from treegym.agents.play.world import PlayStep, World
from treegym.agents.policies.base import MEMORY, ChildScorer
from treegym.rewards.sees import Sees
from treegym.search import SearchResult, Session

__all__ = ["Searched", "SelfPlay", "sampled"]


class Searched(NamedTuple):
    """Whole episodes whose moves were searched, one after the other."""

    positions: dict[str, np.ndarray]  # each [N, ...]: "obs.*", "policy", "q", "target", "state"
    rewards: np.ndarray  # [N] float64
    lengths: np.ndarray  # [E] int64
    correct: np.ndarray  # [E] float32: 1, 0, or NaN where the env does not say
    opened: np.ndarray  # [E] int64, random moves before the first of them

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode ``[E] float64``."""
        count = len(self.lengths)
        return np.bincount(np.repeat(np.arange(count), self.lengths), self.rewards, minlength=count)


class SelfPlay:
    """Plays a world by search.

    Args:
        world: where.
        planner: who searches there.
        scorer: whose observations are kept to learn from.
        rng: where randomness comes from.
        settings: AlphaZero's.
        on_step: called after every step with the number of active lanes and what came of it.

    Attributes:
        spread: what siblings usually differ by (`Units`).
    """

    def __init__(
        self,
        world: World,
        planner: WorldPlanner,
        scorer: ChildScorer,
        rng: np.random.Generator,
        settings: AlphaZeroSettings,
        on_step: Callable[[int, PlayStep], None] = uncounted,
    ) -> None:
        self.world, self.planner, self.scorer, self.rng, self.settings = world, planner, scorer, rng, settings
        self.on_step, self.spread = on_step, 1.0
        self._going: Session | None = None  # searches that go on from move to move
        self._starts: InnerStarts | None = None
        self.finished: list[tuple[float, int]] = []  # return and length of episodes that ended in `pieces`
        self._running = False  # whether the lanes are in the middle of pieces
        self._moves, self._opened = np.zeros(world.num_envs, np.int64), np.zeros(world.num_envs, np.int64)
        self._return = np.zeros(world.num_envs)

    def round(self, size: int, policy: Any, *, longest_opening: int = 0) -> Searched:
        """Plays one episode in each of the first `size` lanes.

        Args:
            size: E.
            policy: what the planner asks.
            longest_opening: how many random moves an exploring start of a game of two may have.
        """
        s, world, planner = self.settings, self.world, self.planner
        lanes = world.num_envs
        roots = world.roots()
        chosen = None
        if roots is not None:
            chosen = self.rng.choice(roots, size=lanes, replace=lanes > len(roots))
        world.reset(np.ones(lanes, np.bool_), roots=chosen, seed=int(self.rng.integers(2**31)))
        opened = np.zeros(size, np.int64)
        if isinstance(planner, ClosedPlanner) and s.exploring_starts:
            self._starts = self._starts or InnerStarts(world)
            self._starts.scatter(size, s.exploring_starts, self.rng)
        elif s.gamma < 0 and s.exploring_starts:
            some = np.arange(lanes) < size
            opened = play_openings(world, some, s.exploring_starts, longest_opening, self.rng, self.on_step)[:size]
        planner.prepare(policy, None if chosen is None else chosen[:size])
        self._going = None
        seen: list[dict[str, np.ndarray]] = []
        picked = np.zeros(0, np.int64)
        behind = np.zeros(size, np.float32)  # [E], value of where each episode was cut off

        def choose(who: np.ndarray) -> np.ndarray:
            nonlocal picked
            seen.append(self._searched(who, np.full(len(who), len(seen) < s.temperature_moves)))
            picked = seen[-1]["picked"]
            return picked

        def stepped(who: np.ndarray, ended: np.ndarray, outcome: PlayStep) -> None:
            cut = np.flatnonzero(ended & outcome.truncated & ~outcome.terminated)
            if len(cut):
                behind[cut] = self._expected(cut, policy)
            if s.reuse_tree:
                self._move(who, picked, ~ended[who])
            self.on_step(len(who), outcome)

        played = play(world, size, choose, stepped)
        positions = {key: played.ordered([part[key] for part in seen]) for key in seen[0]}
        self._conclude(positions, played.rewards, played.lengths, behind)
        return Searched(positions, played.rewards, played.lengths, played.success, opened)

    def pieces(self, steps: int, policy: Any, *, longest_opening: int = 0) -> Searched:
        """Plays `steps` moves in every lane, going on where the last call stopped; episodes are cut at the edges.

        What comes back counts pieces where `round` counts episodes; those that ended since are in `finished`.
        """
        s, world, lanes = self.settings, self.world, self.world.num_envs
        self.planner.prepare(policy)
        everyone, who = np.ones(lanes, np.bool_), np.arange(lanes)
        if not self._running:
            self._begin(everyone, longest_opening)
            self._running = True
        seen: list[dict[str, np.ndarray]] = []
        rewards, behind = np.zeros((steps, lanes)), np.zeros((steps, lanes), np.float32)
        ends = np.zeros((steps, lanes), np.bool_)
        correct = np.full((steps, lanes), np.nan, np.float32)
        for t in range(steps):
            seen.append(self._searched(who, self._moves < s.temperature_moves))
            outcome = world.step(seen[-1]["picked"], everyone)
            rewards[t] = outcome.reward
            self._moves += 1
            self._return += outcome.reward
            ends[t] = outcome.terminated | outcome.truncated
            cut = np.flatnonzero(~outcome.terminated if t == steps - 1 else outcome.truncated & ~outcome.terminated)
            if len(cut):
                behind[t, cut] = self._expected(cut, policy)
            self.on_step(lanes, outcome)
            if ends[t].any():
                if outcome.success is not None:
                    correct[t, ends[t]] = outcome.success[ends[t]]
                lasted = (self._moves + self._opened)[ends[t]]
                self.finished += list(zip(self._return[ends[t]].tolist(), lasted.tolist(), strict=True))
                self._begin(ends[t], longest_opening)
        ends[-1] = True

        def flat(array: np.ndarray) -> np.ndarray:
            return np.swapaxes(array, 0, 1).reshape(-1, *array.shape[2:])

        positions = {key: flat(np.stack([part[key] for part in seen])) for key in seen[0]}
        last = np.flatnonzero(flat(ends))  # [E] the last move of each piece
        lengths = np.diff(last, prepend=-1)
        self._conclude(positions, flat(rewards), lengths, flat(behind)[last])
        return Searched(positions, flat(rewards), lengths, flat(correct)[last], np.zeros(len(last), np.int64))

    def _begin(self, which: np.ndarray, longest_opening: int) -> None:
        """Begins episodes in the lanes of ``which [B] bool``."""
        self.world.reset(which, seed=int(self.rng.integers(2**31)))
        self._moves[which], self._return[which], self._opened[which] = 0, 0.0, 0
        if self.settings.gamma < 0 and self.settings.exploring_starts:
            share = self.settings.exploring_starts
            opened = play_openings(self.world, which, share, longest_opening, self.rng, self.on_step)
            self._opened[which] = opened[which]

    def _searched(self, who: np.ndarray, drawn: np.ndarray) -> dict[str, np.ndarray]:
        """Searches from where lanes stand; returns all that is known of these positions, and the moves picked.

        Args:
            who: the lanes ``[b] int64``.
            drawn: ``[b] bool``, whose moves are drawn from the search's policy.
        """
        s, states = self.settings, self.planner.states(who)
        rows = self._rows(who, states)
        result = self._search(states)
        picked = own = result.action.astype(np.int64)
        if drawn.any() and s.temperature > 0:
            picked = np.where(drawn, sampled(result.policy, s.temperature, self.rng), own)
        plain = isinstance(states, np.ndarray) and states.dtype != object
        return (
            rows
            | {"picked": picked, "followed": picked == own}
            | {"policy": result.policy.astype(np.float32), "q": result.q, "value": result.value}
            | {"state": states.astype(np.int64) if plain else np.full(len(who), -1)}
        )

    def _expected(self, who: np.ndarray, policy: Any) -> np.ndarray:
        """Returns what the critic says of where lanes stand ``[b] float32``."""
        return policy.infer(self._seen(who, self.planner.states(who), self.scorer.needs))[1]

    def _conclude(
        self, positions: dict[str, np.ndarray], rewards: np.ndarray, lengths: np.ndarray, behind: np.ndarray
    ) -> None:
        """Replaces what only self-play needs to know of positions by what there is to learn."""
        positions["target"] = self._targets(positions, rewards, lengths, behind)
        picked = positions.pop("picked")
        if self.settings.selfplay_sees == Sees.VALUE:  # such a search only repeats the critic: returns are news
            positions["q"] = np.full_like(positions["q"], np.nan)
            positions["q"][np.arange(len(picked)), picked] = positions["target"]

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
        asked: dict[str, Any] = {
            "method": s.method, "num_simulations": s.num_simulations, "seed": int(self.rng.integers(2**31)),
            **s.options(explore=True, spread=self.spread),
        }  # fmt: skip
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
        self, positions: dict[str, np.ndarray], rewards: np.ndarray, lengths: np.ndarray, behind: np.ndarray
    ) -> np.ndarray:
        s = self.settings
        value, followed = positions.pop("value"), positions.pop("followed")
        if s.value_target == "n_step":
            return n_step_returns(rewards, value, lengths, n=s.n_step, gamma=s.gamma, behind=behind)
        if s.value_target == "followed":
            worth = searched_worth(positions["policy"], positions["q"], value)
            return followed_returns(rewards, worth, followed, lengths, trace=s.trace, gamma=s.gamma, behind=behind)
        if not behind.any():
            return discounted_returns(rewards, gamma=s.gamma, lengths=lengths)
        paid = rewards.copy()
        paid[lengths.cumsum() - 1] += s.gamma * behind  # an episode that was cut off goes on with what is expected
        return discounted_returns(paid, gamma=s.gamma, lengths=lengths)


def sampled(policy: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Returns moves drawn from pi ** (1 / temperature) ``[B] int64``."""
    running = (policy.astype(np.float64) ** (1.0 / temperature)).cumsum(1)
    return (running > rng.random((len(policy), 1)) * running[:, -1:]).argmax(1)
