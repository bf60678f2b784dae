"""The formats that are damaged: a sound file of each, how it is damaged, and how it is read and used."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from damage import arrays_file, checkpoint_file, json_file, lines_file, text_file

Read = Callable[[Path], None]
Damage = Callable[[Path, np.random.Generator], None]


@dataclass
class Format:
    """A format: a sound file, how it is damaged, and how it is read and used."""

    good: bytes | dict[str, bytes]  # of a folder: its files
    suffix: str
    damage: Damage
    use: Read

    def put(self, path: Path) -> None:
        """Writes the sound file or folder."""
        if isinstance(self.good, bytes):
            path.write_bytes(self.good)
            return
        shutil.rmtree(path, ignore_errors=True)
        for name, raw in self.good.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(raw)


def formats(folder: Path) -> dict[str, Format]:
    """Makes a sound file of every format."""
    import gymnasium as gym

    from treegym.agents import PPO, AlphaZero
    from treegym.bench.episodes import read_episodes, read_training
    from treegym.bench.suite import load_suite
    from treegym.envs.token_tree.prompts import load_prompts
    from treegym.envs.token_tree.world import load_tree
    from treegym.models.vision.pixels import pixels_of, plain_picture
    from treegym.models.vision.shapes import png_of
    from treegym.optimize.strategies import STRATEGIES
    from treegym.optimize.table import BUNDLED as TABLE
    from treegym.optimize.table import load_table
    from treegym.optimize.tracker import StrategyTracker
    from treegym.rewards.rollouts import read_rollouts
    from treegym.rewards.spec import load as load_reward
    from treegym.rewards.terms.zones import ZoneModel
    from treegym.tree.editing import select_roots
    from treegym.tree.pictures import is_plain_png, picture_name

    tree = "synthetic:roots=6,depth=4,branching=3"
    load_tree(tree).save(folder / "good.tree")
    pictured = load_tree("bundled:captions")
    select_roots(pictured, [0, pictured.num_roots - 1]).save(folder / "pictured.tree")
    env = gym.make("TokenTree-v0", tree=tree)
    ppo = PPO("ChildPolicy", env, n_envs=4, n_steps=4, seed=0).learn(32, log_interval=0)
    ppo.save(folder / "ppo.zip")
    zero = AlphaZero("ChildPolicy", env, n_envs=4, n_episodes=4, num_simulations=2, buffer_size=64, seed=0)
    zero.learn(8, log_interval=0).save(folder / "zero.zip")

    def walk(path: Path) -> None:
        found = load_tree(str(path))
        found.validate()
        batch: Any = gym.make_vec("TokenTree-v0", num_envs=3, tree=found, split="all", max_children=64, reward="length")
        seen, _ = batch.reset(seed=0)
        for _ in range(6):
            assert batch.observation_space.contains(seen), "an observation left its space"
            seen, reward, *_ = batch.step(seen["action_mask"].argmax(1))
            assert np.isfinite(reward).all(), "a reward is not finite"

    def look(path: Path) -> None:
        found = load_tree(str(path))
        found.validate()
        for root in found.roots:
            if root.image:
                pixels_of(root.image)
                assert picture_name(root.image) in root.prompt, "a picture that its prompt does not name"

    def see(path: Path) -> None:
        png = plain_picture(path)
        assert is_plain_png(png), "a picture was made plain and is not"
        pixels_of(png)

    def taken_up(kind: Any) -> Read:
        def use(path: Path) -> None:
            agent = kind.load(path, env=env)
            agent.learn(4, reset_num_timesteps=False, log_interval=0)
            agent.predict(env.reset(seed=0)[0])

        return use

    quantities = {"depth": np.arange(5.0)}
    zones = ZoneModel.fit({"depth": np.arange(40.0)}, np.arange(40.0) % 3)
    rows = {next(iter(STRATEGIES)): [[0.1, 0.2, -0.1]] * 3}
    tracker = {"format": 1, "results": {"mlp": rows}, "failures": {"mlp": {next(iter(STRATEGIES)): 1}}}

    def weigh(path: Path) -> None:
        found = StrategyTracker(path)
        found.success_rates("mlp", np.ones(3) / 3)
        found.dynamic_weights("mlp", list(rows), np.ones(3) / 3)

    episode = {"checkpoint": 0, "prompt": 1, "kind": "a", "return": 1.0, "correct": True, "true": 1.0, "proxy": 1.0,
               "length": 3, "regret": None, "end": 4, "failed": 0, "start": 1, "env_steps": 3}  # fmt: skip
    lines = "".join(json.dumps({**episode, "prompt": i}) + "\n" for i in range(20)).encode()
    prompts = "".join(json.dumps({"prompt": f"{i}+1=", "answer": f"{i + 1}"}) + "\n" for i in range(8)).encode()
    rollouts = "".join(
        json.dumps({"prompt": f"{i}+1=", "text": f"{i + 1}", "answer": f"{i + 1}"}) + "\n" for i in range(8)
    ).encode()
    reward = {"verifier": 1.0, "length": {"weight": -0.1}, "similarity": {"weight": 0.5, "on_error": "mask"}}
    suite = (Path(sys.modules[load_suite.__module__].__file__ or "").parent / "data" / "quick.toml").read_bytes()
    from kept import kept
    from kept_minari import kept_minari

    return kept(folder, env) | {
        "tree": Format((folder / "good.tree").read_bytes(), ".tree", arrays_file, walk),
        "tree with pictures": Format((folder / "pictured.tree").read_bytes(), ".tree", arrays_file, look),
        "picture": Format(png_of(np.arange(768).reshape(16, 16, 3).astype(np.uint8)), ".png", text_file, see),
        "checkpoint ppo": Format((folder / "ppo.zip").read_bytes(), ".zip", checkpoint_file, taken_up(PPO)),
        "checkpoint zero": Format((folder / "zero.zip").read_bytes(), ".zip", checkpoint_file, taken_up(AlphaZero)),
        "episodes": Format(gzip.compress(lines), ".jsonl.gz", lines_file, lambda p: void(read_episodes(p))),
        "training episodes": Format(gzip.compress(lines), ".jsonl.gz", lines_file, lambda p: void(read_training(p))),
        "suite": Format(suite, ".toml", text_file, lambda p: void(load_suite(p).jobs())),
        "zones": Format(json.dumps(zones.to_dict()).encode(), ".json", json_file,
                        lambda p: void(ZoneModel.load(p).adjustment(quantities))),
        "tracker": Format(json.dumps(tracker).encode(), ".json", json_file, weigh),
        "table": Format(TABLE.read_bytes(), ".json", text_file, lambda p: void(load_table(p))),
        "reward": Format(json.dumps(reward).encode(), ".json", json_file, lambda p: void(load_reward(p).names)),
        "prompts": Format(prompts, ".jsonl", lines_file, lambda p: void(load_prompts(str(p)).roots)),
        "rollouts": Format(rollouts, ".jsonl", lines_file, lambda p: void(list(read_rollouts(p)))),
    } | kept_minari(folder)  # fmt: skip


def void(_: Any) -> None:
    """Takes what reading returned."""
