"""Damages files of every format and reads them: each is refused in a sentence of ours, or can be used.

    python tests/hostile/fuzz.py --seed 0 --count 200        one line of JSON; exit code 1 if anything did not hold

What is damaged is known: bytes are flipped, cut, repeated; values in JSON are replaced by junk of every kind; arrays
get other shapes, types and values. Every format is tried in this process, which may take 1 GiB more than it holds when
it begins, and ten seconds for a file. A mutation follows from the seed, the format and its number alone.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[Path], None]
Damage = Callable[[Path, np.random.Generator], None]
ROOM, SECONDS = 2**30, 10
JUNK: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**70, 1e300, -1e300, 0.5, "", "x", "\x1b[2J", "9" * 300, [], {}, [[]], [None],
    {"": {}}, [2**64], ["x"] * 50, [-1, 0.5, "x"],
]  # fmt: skip


class TooSlow(BaseException):
    """A file took longer than it may."""


@dataclass
class Tally:
    """What became of a format's mutations."""

    tried: int = 0
    refused: int = 0
    held: int = 0  # read and used
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


# ---------------------------------------------------------------- damage


def bytes_of(raw: bytes, rng: np.random.Generator) -> bytes:
    """Returns bytes with a few of them flipped, cut off, repeated or replaced."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(max(len(data), 1)))
        kind = int(rng.integers(5))
        if kind == 0 and data:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = data[place : place + int(rng.integers(1, 64))]
        elif kind == 3:
            data[place : place + 8] = rng.bytes(8)
        else:
            del data[place : place + int(rng.integers(1, 32))]
    return bytes(data)


def json_value(value: Any, rng: np.random.Generator) -> Any:
    """Returns a JSON value with junk in one place, or with a place missing or twice."""
    value = copy.deepcopy(value)
    ways: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in list(inner) if isinstance(inner, dict) else range(len(inner))[:50]:
            ways.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    if not isinstance(value, dict | list):
        return JUNK[int(rng.integers(len(JUNK)))]
    walk(value)
    for _ in range(int(rng.integers(1, 3)) if ways else 0):
        inner, key = ways[int(rng.integers(len(ways)))]
        if rng.random() < 0.15 and isinstance(inner, dict):
            inner.pop(key, None)
        elif isinstance(inner, dict) or key < len(inner):
            inner[key] = copy.deepcopy(JUNK[int(rng.integers(len(JUNK)))])
    return value


def json_file(path: Path, rng: np.random.Generator) -> None:
    raw = path.read_bytes()
    whole = rng.random() < 0.3
    path.write_bytes(bytes_of(raw, rng) if whole else json.dumps(json_value(json.loads(raw), rng)).encode())


def lines_file(path: Path, rng: np.random.Generator) -> None:
    packed = path.suffix == ".gz"
    raw = path.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(bytes_of(raw, rng))
        return
    lines = (gzip.decompress(raw) if packed else raw).splitlines()
    place = int(rng.integers(len(lines)))
    lines[place] = json.dumps(json_value(json.loads(lines[place]), rng)).encode()
    text = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(text) if packed else text)


def one_array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns an array of another shape or type, or with values it should not have."""
    kind = int(rng.integers(6))
    array = np.array(array)
    if kind == 0:
        return array.reshape(-1)[: int(rng.integers(array.size + 1))]
    if kind == 1:
        return np.resize(array, (*array.shape, 2)) if array.size else np.zeros(3, array.dtype)
    if kind == 2:
        with np.errstate(all="ignore"):
            return array.astype([np.float32, np.int64, np.uint8, np.int8, np.float64][int(rng.integers(5))])
    flat = array.reshape(-1)
    if flat.size:
        value = [np.nan, np.inf, -1, 0, 127, 2**31 - 1, 2**15][int(rng.integers(7))]
        with np.errstate(all="ignore"):
            where = rng.integers(flat.size, size=int(rng.integers(1, 4)))
            flat[where] = np.asarray(value).astype(array.dtype) if array.dtype.kind != "b" else True
    return array


def arrays_of(raw: bytes, rng: np.random.Generator, folder: Path) -> bytes:
    """Returns an array file with one array or one entry of its header damaged."""
    from treegym.files import arrays_in, write_arrays

    length = int.from_bytes(raw[:8], "little")
    choice = rng.random()
    if choice < 0.2:
        return bytes_of(raw, rng)
    if choice < 0.5:
        header = json.dumps(json_value(json.loads(raw[8 : 8 + length]), rng)).encode()
        return len(header).to_bytes(8, "little") + header + raw[8 + length :]
    arrays, metadata = arrays_in(np.frombuffer(raw, np.uint8), where="the good one", values=2**22)
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    write_arrays(folder / "part", {**arrays, name: one_array(arrays[name], rng)}, metadata)
    return (folder / "part").read_bytes()


def arrays_file(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(arrays_of(path.read_bytes(), rng, path.parent))


def checkpoint_file(path: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.15:
        path.write_bytes(bytes_of(path.read_bytes(), rng))
        return
    with zipfile.ZipFile(path) as archive:
        data, arrays = archive.read("data.json"), archive.read("arrays.safetensors")
    if rng.random() < 0.5:
        data = json.dumps(json_value(json.loads(data), rng)).encode()
    else:
        arrays = arrays_of(arrays, rng, path.parent)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.json", data)
        archive.writestr("arrays.safetensors", arrays)


def text_file(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(bytes_of(path.read_bytes(), rng))


# ---------------------------------------------------------------- the formats


@dataclass
class Format:
    """A format: a sound file, how it is damaged, and how it is read and used."""

    good: bytes
    suffix: str
    damage: Damage
    use: Read


def formats(folder: Path) -> dict[str, Format]:
    """Makes a sound file of every format."""
    import gymnasium as gym

    from treegym.agents import PPO, AlphaZero
    from treegym.bench.episodes import read_episodes, read_training
    from treegym.bench.suite import load_suite
    from treegym.envs.token_tree.prompts import load_prompts
    from treegym.envs.token_tree.world import load_tree
    from treegym.optimize.strategies import STRATEGIES
    from treegym.optimize.table import BUNDLED as TABLE
    from treegym.optimize.table import load_table
    from treegym.optimize.tracker import StrategyTracker
    from treegym.rewards.rollouts import read_rollouts
    from treegym.rewards.spec import load as load_reward
    from treegym.rewards.terms.zones import ZoneModel

    tree = "synthetic:roots=6,depth=4,branching=3"
    load_tree(tree).save(folder / "good.tree")
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
    return {
        "tree": Format((folder / "good.tree").read_bytes(), ".tree", arrays_file, walk),
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
    }  # fmt: skip


def void(_: Any) -> None:
    """Takes what reading returned."""


# ---------------------------------------------------------------- the run


def try_one(name: str, form: Format, path: Path, rng: np.random.Generator, tally: Tally, what: str) -> None:
    """Damages a sound file, reads it, and notes what came of it."""
    from treegym.errors import TreeGymError

    path.write_bytes(form.good)
    form.damage(path, rng)
    tally.tried += 1
    begun = time.monotonic()
    signal.alarm(SECONDS)
    try:
        form.use(path)
        tally.held += 1
    except TreeGymError as error:
        tally.refused += 1
        if len(str(error)) > 500 or not str(error):
            tally.failed.append(f"{what}: a message of {len(str(error))} characters")
    except TooSlow:
        tally.failed.append(f"{what}: took more than {SECONDS} s")
    except Exception as error:  # noqa: BLE001 (this is what is looked for)
        tally.failed.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.alarm(0)
    tally.slowest_s = max(tally.slowest_s, time.monotonic() - begun)


def main() -> int:
    """Runs the mutations and prints the tallies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="mutations of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--format", action="append", help="only this format")
    args = parser.parse_args()

    def too_slow(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, too_slow)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        known = formats(Path(folder))
        for form in known.values():  # a sound file holds, and brings into memory what reading needs
            path = Path(folder) / f"sound{form.suffix}"
            path.write_bytes(form.good)
            form.use(path)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for place, (name, form) in enumerate(known.items()):
            if args.format and name not in args.format:
                continue
            tally = tallies[name] = Tally()
            for number in range(args.first, args.first + args.count):
                rng = np.random.default_rng([args.seed, place, number])
                what = f"{name} {args.seed} {number}"
                Path(folder, "now").write_text(what)
                try_one(name, form, Path(folder) / f"bad{form.suffix}", rng, tally, what)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(json.dumps({"formats": {name: vars(tally) for name, tally in tallies.items()}, "grown_mib": grown}))
    return 1 if any(tally.failed for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
