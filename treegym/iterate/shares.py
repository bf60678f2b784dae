"""Episodes collected in shares: each has its own draws, so it is the same wherever, and however often, it is done.

A share is told which weights to play with, where its randomness comes from and how much to play; the learner puts the
shares together in their order. So a run depends on how many shares there are and not on who did them, and a share
whose worker was lost is done again by another.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.iterate.experts import Played, play_by_search
from treegym.iterate.primary import Source
from treegym.iterate.settings import IterateSettings
from treegym.registry import resolve

__all__ = ["Staff", "collected_in_shares", "collector", "local_staff", "searched_in_shares", "searcher"]

# Who does shares: told what to make workers from, it yields what gives answers to jobs, in their order. What all jobs
# of a call have in common is passed on once.
Doer = Callable[[Sequence[Any], Any], list[Any]]
Staff = Callable[[str, Mapping[str, Any]], AbstractContextManager[Doer]]


@contextmanager
def local_staff(maker: str, setup: Mapping[str, Any]) -> Iterator[Doer]:
    """Yields what does one share after another in this process."""
    do = resolve(maker, "what does shares")(setup)
    yield lambda jobs, common: [do((job, common)) for job in jobs]


def searched_in_shares(settings: IterateSettings, world: Any, seed: int, staff: Staff) -> Played:
    """Returns an episode of the expert for each prompt of a tree; the shares come to the same as the whole."""
    if settings.actors == 1 and staff is local_staff:
        return play_by_search(world, world.pool, simulations=settings.simulations, seed=seed)
    parts = np.array_split(world.pool, settings.actors)
    starts = np.cumsum([0, *map(len, parts[:-1])])
    jobs = [(part, int(start)) for part, start in zip(parts, starts, strict=True) if len(part)]
    with tempfile.TemporaryDirectory(prefix="treegym-shares-") as folder:
        world.tree.save(Path(folder) / "tree.tree")
        setup = {"settings": settings.as_json(), "seed": seed, "tree": (Path(folder) / "tree.tree").read_bytes()}
    whole = Played()
    with staff("treegym.iterate.shares:searcher", setup) as do:
        for played in do(jobs, None):
            for episode in zip(played.roots, played.paths, played.returns, played.correct, strict=True):
                whole.add(*episode)
    return whole


def searcher(setup: Mapping[str, Any]) -> Callable[[tuple[Any, None]], Played]:
    """Returns what does a share of the expert's episodes."""
    import torch

    from treegym.envs.token_tree.world import TreeWorld

    torch.set_num_threads(1)
    settings = IterateSettings(**setup["settings"])
    folder = _unpacked({"tree.tree": setup["tree"]})
    world = TreeWorld(
        str(folder / "tree.tree"),
        reward=settings.reward,
        max_tokens=settings.max_tokens,
        curriculum=settings.curriculum,
    )

    def search(told: tuple[Any, None]) -> Played:
        (roots, first), _ = told
        return play_by_search(world, roots, simulations=settings.simulations, seed=setup["seed"], first=first)

    return search


def collected_in_shares(
    settings: IterateSettings, source: Source, tree: Path, seed: int, staff: Staff
) -> Callable[[Any], AbstractContextManager[Callable[[Any], Any]]]:
    """Returns what makes, of a round's agent, the function that collects its rollouts in shares."""

    @contextmanager
    def collecting(agent: Any) -> Iterator[Callable[[Any], Any]]:
        count, each = settings.actors, agent.settings.n_episodes // settings.actors
        group = getattr(agent.settings, "group_size", 1)
        if agent.settings.n_steps is not None or each < group or agent.settings.n_episodes % count:
            raise ConfigError(
                f"n_episodes is {agent.settings.n_episodes}; {count} actors each take an equal share of "
                f"whole episodes, and of at least {group}"
            )
        setup = {
            "settings": settings.as_json(), "seed": seed, "each": each, "model": _packed(source.model),
            "adapters": None if source.adapters is None else _packed(source.adapters),
            "tree": tree.read_bytes() if settings.on_tree else None,
        }  # fmt: skip
        with staff("treegym.iterate.shares:collector", setup) as do:
            yield lambda callback: _rollout(agent, callback, do, count, seed)

    return collecting


def _rollout(agent: Any, callback: Any, do: Doer, count: int, seed: int) -> Any:
    """Returns the shares of a rollout as one, and counts their steps."""
    from treegym.agents.play.rollout import Stopped, join

    weights = {name: tensor.detach().cpu() for name, tensor in agent.policy.state_dict().items()}
    left = -(-(agent._total_timesteps - agent.num_timesteps) // count)
    jobs = [{"draws": [seed, agent.iteration, index], "left": left} for index in range(count)]
    shares = do(jobs, weights)
    above = 0
    parts = []
    for part, _ in shares:
        parts.append(part.with_(groups=part.groups + above))
        above += int(part.groups.max(initial=-1)) + 1
    rollout = join([part for part in parts if part.episodes] or parts[:1])
    agent.num_timesteps += sum(steps for _, steps in shares)
    agent.ep_info_buffer.extend(
        {"r": float(total), "l": int(length), "t": 0.0}
        for total, length in zip(rollout.returns, rollout.lengths, strict=True)
    )
    agent.ep_success_buffer.extend(rollout.correct[~np.isnan(rollout.correct)].tolist())
    callback.update_locals({"rollout": rollout})
    if not callback.on_step():
        raise Stopped
    return rollout


def collector(setup: Mapping[str, Any]) -> Callable[[tuple[Mapping[str, Any], Any]], tuple[Any, int]]:
    """Returns what does a share of a rollout: the trajectories, and how many steps they took to collect."""
    import torch
    from stable_baselines3.common.logger import configure

    from treegym.iterate.reinforce import learner

    torch.set_num_threads(1)
    settings = IterateSettings(**setup["settings"])
    settings.options.update(n_episodes=setup["each"])
    model, adapters = _opened(setup["model"]), setup["adapters"]
    tree = Path("none") if setup["tree"] is None else _unpacked({"tree.tree": setup["tree"]}) / "tree.tree"
    source = Source(model, None if adapters is None else _opened(adapters))
    agent, _ = learner(settings, source, tree, setup["seed"], log=None)
    agent.set_logger(configure(None, []))
    agent.ep_info_buffer, agent.ep_success_buffer = deque(maxlen=1), deque(maxlen=1)

    def collect(told: tuple[Mapping[str, Any], Any]) -> tuple[Any, int]:
        job, weights = told
        agent.policy.load_state_dict(weights)
        agent.policy.set_training_mode(False)
        agent.rng = np.random.default_rng(job["draws"])
        agent._collector = None  # it holds the generator
        agent.num_timesteps, agent._total_timesteps = 0, job["left"]
        share = agent.collect(_Nobody())
        return share, agent.num_timesteps

    return collect


class _Nobody:
    """A callback of whom nothing is asked: the learner calls its own."""

    def update_locals(self, told: Mapping[str, Any]) -> None:
        pass

    def on_step(self) -> bool:
        return True


def _packed(place: str) -> str | dict[str, bytes]:
    """Returns the files of a model's folder, which other nodes do not have; the name of one that is bundled."""
    folder = Path(place)
    if not folder.is_dir():
        return place
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def _opened(packed: str | Mapping[str, bytes]) -> str:
    return packed if isinstance(packed, str) else str(_unpacked(packed))


def _unpacked(files: Mapping[str, bytes]) -> Path:
    """Writes files into a folder of this process, which is removed with it."""
    kept = tempfile.TemporaryDirectory(prefix="treegym-share-")
    _folders.append(kept)
    for name, data in files.items():
        file = Path(kept.name) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return Path(kept.name)


_folders: list[tempfile.TemporaryDirectory[str]] = []
