"""The evaluation side of an environment: the same prompts for every agent, the exact optimum and chance beside them.

Letters: P prompts, N nodes of the tree, K actions.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from treegym.agents.play.episodes import play
from treegym.agents.play.world import PlayStep
from treegym.bench.claims import contradictions, path_sums
from treegym.bench.episodes import Episodes
from treegym.bench.suite import EnvEntry
from treegym.display import plain
from treegym.errors import ConfigError
from treegym.registration import accepts, find_spec, has_native_batch
from treegym.rewards import build

__all__ = ["Arena", "Player", "best_of_root", "make_batch"]

DEFAULT_EPISODES = 100  # in worlds without a fixed set of prompts
SEED = 20_011  # evaluation episodes are seeded apart from training's 0, 1, 2, ...
LANES = 256  # prompts walked side by side
SAMPLES, LONGEST = 6, 300  # answers that are kept to be read, and letters of each


class Player(Protocol):
    """What can be evaluated."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]: ...


def make_batch(env_id: str, num_envs: int, kwargs: Mapping[str, Any], **vector: Any) -> gym.vector.VectorEnv:
    """Returns a vector environment: the native batch where there is one, else single environments side by side."""
    try:
        if has_native_batch(find_spec(env_id)):
            return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **vector, **kwargs)
        return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="sync", **kwargs)
    except (TypeError, gym.error.Error) as error:
        raise ConfigError(f"environment {env_id} cannot be made with {dict(kwargs)}: {error}") from error


class _Stage:
    """A vector environment as the loop that plays episodes steps it, with what it showed last."""

    def __init__(self, envs: Any, observation: Any) -> None:
        self.envs, self.seen, self.num_envs = envs, observation, envs.num_envs

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
        self.seen, reward, terminated, truncated, info = self.envs.step(actions)
        reward = np.asarray(reward, np.float64)
        success = np.asarray(info.get("is_success", np.zeros(self.num_envs)), np.float32)
        paid = reward if reward.ndim == 1 else reward.sum(axis=1)
        return PlayStep(paid, np.asarray(terminated), np.asarray(truncated), success, info)


class Arena:
    """Evaluates players on the prompts of one environment.

    Args:
        entry: the environment, as its suite describes it.
        split: which prompts, where the environment has splits.
        episodes: how many of them, spread evenly; 0 is all.
    """

    def __init__(self, entry: EnvEntry, *, split: str, episodes: int) -> None:
        self.entry = entry
        spec = find_spec(entry.id)
        kwargs = {**entry.kwargs, **({"split": split} if accepts(spec, "split") else {}), **entry.evaluation}
        self._kwargs = kwargs
        probe = make_batch(entry.id, 1, kwargs)
        world = getattr(probe.unwrapped, "world", None)
        pool = getattr(world, "pool", None)
        self.tree: Any = getattr(world, "tree", None)
        self.world: Any = world if self.tree is not None else None
        self.by_root = pool is not None
        self._references: Any = getattr(world, "references", None) if self.world is None else None
        if pool is not None:
            self.prompts = _spread(np.asarray(pool, np.int64), episodes)  # [P] int64, roots
        else:
            self.prompts = np.arange(episodes or DEFAULT_EPISODES, dtype=np.int64)
        self._lanes = min(LANES if has_native_batch(spec) else 16, len(self.prompts))
        self._envs: Any = make_batch(entry.id, self._lanes, kwargs)
        probe.close()
        self.kinds = self._kinds(world)  # [P] str
        self._best_of_root = best_of_root(world) if self.world is None else None  # [R] float64
        self._best: np.ndarray | None = None  # [N] float64
        # [N] float64 each: what the training reward pays on the way to a node, and at how many steps it fails
        self._in_training: tuple[np.ndarray, np.ndarray] | None = None

    def close(self) -> None:
        self._envs.close()

    @property
    def batch(self) -> gym.vector.VectorEnv:
        return self._envs

    def evaluate(self, player: Player) -> Episodes:
        """Plays every prompt once, always choosing what the player thinks best."""
        lanes = self._lanes
        parts = []
        for start in range(0, len(self.prompts), lanes):
            chosen = np.arange(start, min(start + lanes, len(self.prompts)))
            parts.append(self._round(player, chosen))
        return Episodes.join(parts)

    def _round(self, player: Player, chosen: np.ndarray) -> Episodes:
        envs, lanes = self._envs, self._lanes
        padded = np.resize(self.prompts[chosen], lanes)  # spare lanes repeat prompts; what they do is not counted
        if self.by_root:
            observation, _ = envs.reset(seed=SEED, options={"roots": padded})
        else:
            observation, _ = envs.reset(seed=[SEED + int(p) for p in padded])
        stage = _Stage(envs, observation)
        best, end = np.full(lanes, np.nan), np.full(lanes, -1, np.int64)
        failed = np.zeros(lanes, np.int32)
        state: Any = None
        begun = np.ones(lanes, np.bool_)

        def choose(who: np.ndarray) -> np.ndarray:
            nonlocal state, begun
            start, begun = begun, np.zeros(lanes, np.bool_)
            if state is not None:  # a player with memory is asked about all lanes, those that have ended too
                seen = stage.seen
                actions, state = player.predict(seen, state, start, deterministic=True, **_masks(player, seen))
                return np.asarray(actions)[who]
            seen = _rows(stage.seen, who)
            actions, state = player.predict(seen, None, start[who], deterministic=True, **_masks(player, seen))
            state = None if state is None else _refuse_memory(state, lanes, len(who))
            return actions

        def stepped(who: np.ndarray, ended: np.ndarray, outcome: PlayStep) -> None:
            if "reward_failed" in outcome.info:
                failed[who] += np.asarray(outcome.info["reward_failed"], np.bool_)[who]
            if "best_return" in outcome.info:
                best[ended] = np.asarray(outcome.info["best_return"], np.float64)[ended]
            if self.world is not None:
                end[ended] = envs.unwrapped.nodes[ended]

        played = play(stage, len(chosen), choose, stepped)
        correct = np.nan_to_num(played.success) > 0.5
        return self._episodes(chosen, played.returns, correct, played.lengths.astype(np.int32), best, end, failed)

    def _episodes(
        self,
        chosen: np.ndarray,
        ret: np.ndarray,
        correct: np.ndarray,
        length: np.ndarray,
        best: np.ndarray,
        end: np.ndarray,
        failed: np.ndarray,
    ) -> Episodes:
        count = len(chosen)
        best, end, failed = best[:count], end[:count], failed[:count]
        true, proxy = correct.astype(np.float64), ret
        if self.world is not None:
            verdict = np.asarray(self.world.tree.verdict)[end].astype(np.float64)
            true = np.where(np.isnan(verdict), true, verdict)
            best = self.best_values()[np.asarray(self.tree.root_node)[self.prompts[chosen]]]
            if "reward" in self.entry.evaluation:
                proxy, failures = self._returns_in_training(end)
                failed = failed + failures.astype(np.int32)
        elif self._best_of_root is not None:
            best = self._best_of_root[self.prompts[chosen]]
        return Episodes(
            prompt=self.prompts[chosen].astype(np.int32),
            kind=self.kinds[chosen],
            ret=ret,
            correct=correct,
            true=true,
            proxy=proxy,
            length=length,
            regret=np.maximum(best - ret, 0.0),
            end=end,
            failed=failed,
        )

    def samples(self, episodes: Episodes) -> list[dict[str, Any]]:
        """Returns what a few episodes said, the same prompts for every agent; nothing for worlds that are not trees."""
        if self.tree is None:
            return []
        chosen = np.unique(np.linspace(0, len(episodes) - 1, SAMPLES).astype(np.int64))
        return [
            {
                "prompt": plain(self.tree.prompts[episodes.prompt[i]])[:LONGEST],
                "answer": plain(self.tree.text(int(episodes.end[i])))[:LONGEST],
                "correct": bool(episodes.correct[i]),
            }
            for i in chosen
        ]

    def digest(self) -> str:
        """Returns a hash of the tree that is walked; "" for worlds that are not trees."""
        if self.tree is None:
            return ""
        content = hashlib.sha256("\0".join(self.tree.prompts).encode())
        for column in ("token", "parent", "verdict", "prior", "judge"):
            content.update(np.ascontiguousarray(getattr(self.tree, column)).tobytes())
        return content.hexdigest()[:16]

    # ------------------------------------------------------------------ references

    def best_values(self) -> np.ndarray:
        """Returns the best return that can still be had from every node ``[N] float64``, by backward induction."""
        if self._best is None:
            assert self.world is not None
            self._best = np.asarray(self.world.solution(1.0).value)
        return self._best

    def references(self) -> dict[str, float]:
        """Returns what uniform random choice and the exact optimum score, or a world's own references: computed."""
        if self._references is not None and self.entry.metric == "return":
            known: dict[str, float] = self._references(self.prompts)
            return known
        if self.world is None:
            if self._best_of_root is None or self.entry.metric != "return":
                return {}
            return {"optimum": float(self._best_of_root[self.prompts].mean())}
        world, metric = self.world, self.entry.metric
        nodes = np.arange(self.tree.size)
        roots = np.asarray(self.tree.root_node)[self.prompts]
        if metric in ("correct", "true"):
            pays = world.correct(nodes).astype(np.float64)
            optimum = world.solution(1.0).reachable[roots].astype(np.float64)
        else:
            world.table.ensure(nodes)
            pays = np.where(np.asarray(self.tree.parent) < 0, 0.0, world.table.total)
            optimum = self.best_values()[roots]
        chance = uniform_values(self.tree, pays, world.tables.ends | world.tables.cut_off)[roots]
        return {"random": float(chance.mean()), "optimum": float(optimum.mean())}

    def contradictions(self, episodes: Episodes) -> list[str]:
        """Returns the columns in which episodes contradict the tree at the nodes they ended in."""
        return contradictions(self.world, episodes, self.best_values())

    def _returns_in_training(self, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the reward that agents train on pays for the paths to these nodes, and how often it fails."""
        if self._in_training is None:
            world = self.world
            assert world is not None
            table = build(self.entry.kwargs.get("reward")).on(
                self.tree, ends=world.tables.ends, truncated=world.tables.cut_off
            )
            table.ensure(np.arange(self.tree.size))
            self._in_training = path_sums(self.tree, table.total), path_sums(self.tree, table.failed)
        paid, failures = self._in_training
        return paid[end], failures[end]

    def _kinds(self, world: Any) -> np.ndarray:
        names = None
        if self.tree is not None:
            names = self.tree.kinds
        elif self.by_root and hasattr(world, "kinds"):
            names = world.kinds
        if names is None:
            return np.full(len(self.prompts), self.entry.name)
        return np.array([names[int(p)] or self.entry.name for p in self.prompts])


def best_of_root(world: Any) -> np.ndarray | None:
    """Returns the best return of every root, where a world without a tree knows it (recorded candidate selection)."""
    value = getattr(getattr(world, "solution", None), "value", None)
    return None if value is None else np.asarray(value, np.float64)


def uniform_values(tree: Any, pays: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the expected payments below every node ``[N] float64`` when all children are equally likely."""
    value = np.zeros(tree.size)
    parent, depth = np.asarray(tree.parent), np.asarray(tree.depth)
    count = np.maximum(np.asarray(tree.child_count), 1)
    for level in range(int(depth.max(initial=0)), 0, -1):
        here = np.flatnonzero(depth == level)
        worth = pays[here] + np.where(ends[here], 0.0, value[here])
        np.add.at(value, parent[here], worth / count[parent[here]])
    return value


def _rows(observation: Any, who: np.ndarray) -> Any:
    if isinstance(observation, Mapping):
        return {key: array[who] for key, array in observation.items()}
    return observation[who]


def _masks(player: Player, observation: Any) -> dict[str, np.ndarray]:
    """Returns the legal actions for players that want to be told apart from the observation, as sb3-contrib's do."""
    if not isinstance(observation, Mapping) or "action_mask" not in observation:
        return {}
    wanted = "action_masks" in inspect.signature(player.predict).parameters
    return {"action_masks": observation["action_mask"]} if wanted else {}


def _refuse_memory(state: Any, lanes: int, asked: int) -> Any:
    # Memory appears at the first step, when all lanes that count are alive; with spare lanes its rows would not fit.
    if asked != lanes:
        raise ConfigError(
            "a player with memory needs as many prompts as lanes; set [evaluation] episodes to at most 256"
        )
    return state


def _spread(pool: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` entries spread evenly over the pool (all for 0)."""
    if count <= 0 or count >= len(pool):
        return pool
    return pool[np.linspace(0, len(pool) - 1, count).round().astype(np.int64)]
