"""More formats: what searches, caches, growths, benchmarks and learned models keep, each with its use."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from damage import any_file, arrays_file, bytes_of, json_file, metadata_file, sealed_lines, text_file

__all__ = ["kept"]

MODULE = """import torch


class Net(torch.nn.Module):
    example_inputs = (torch.arange(12.0).reshape(2, 6),)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def make():
    return Net().eval()
"""


def kept(folder: Path, env: Any) -> dict[str, Any]:
    """Makes a sound file or folder of each."""
    from formats import Format

    return {
        name: Format(*parts)
        for make in (_searches, _caches, _tables, _recipes, _models, _folders)
        for name, parts in make(folder, env).items()
    }


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def void(_: Any) -> None:
    """Takes what reading returned."""


def _searches(folder: Path, env: Any) -> dict[str, Any]:
    from treegym.agents.planning.simulators import LanesSimulator, TreeSimulator
    from treegym.envs.token_tree.lanes import Lanes
    from treegym.search import Options, Session

    world = env.unwrapped.world
    found: dict[str, Any] = {}
    places = world.tree.root_node[:3].astype(np.int64)

    def goes_on(simulator: Any) -> Callable[[Path], None]:
        def use(path: Path) -> None:
            session = Session.load(path, simulator)
            result = session.run(simulations=4)
            if len(result.action) == len(places):
                moved = simulator.step(places, result.action)
                session.advance(result.action, moved.states)
                session.run(simulations=4)
            session.save(folder / "again.safetensors")

        return use

    for name, simulator, options in (
        ("search", TreeSimulator(world, None), {"method": "gumbel"}),
        ("search joined", TreeSimulator(world, None), {"method": "puct", "transpositions": True, "solve": True}),
        ("search of lanes", LanesSimulator(Lanes(world, 3), None), {"method": "similarity"}),
    ):
        method = options.pop("method")
        session = Session(simulator, places, method=method, num_simulations=12, options=Options(**options))
        session.run(simulations=6)
        session.save(folder / "search.safetensors")
        found[name] = ((folder / "search.safetensors").read_bytes(), ".safetensors", metadata_file, goes_on(simulator))
    return found


def _caches(folder: Path, env: Any) -> dict[str, Any]:
    from treegym.hub import _shared, parse
    from treegym.models.remote.journal import Journal
    from treegym.rewards.judge.cache import JudgeCache

    with Journal(folder / "journal") as journal:
        for i in range(6):
            answer = {"choices": [{"message": {"content": f"{i}"}}]}
            journal.put("chat", {"i": i}, answer)
    cache = JudgeCache(folder / "cache.sqlite")
    for i in range(40):
        cache.put(f"{i:032x}", i / 40)
    cache.close()
    whole = sqlite3.connect(folder / "cache.sqlite")
    whole.execute("PRAGMA journal_mode=DELETE")
    whole.close()

    def ask(path: Path) -> None:
        with Journal(path) as journal:
            for i in range(6):
                journal.get("chat", {"i": i})
            journal.put("chat", {"i": 9}, {"choices": []})
        with Journal(path) as journal:
            assert journal.get("chat", {"i": 9}) == {"choices": []}

    def look_up(path: Path) -> None:
        held = JudgeCache(path)
        try:
            scores = held.get([f"{i:032x}" for i in range(40)])
            held.put("new", 0.5)
        finally:
            held.close()
        assert all(0.0 <= score <= 1.0 for score in scores.values())

    def rows(path: Path, rng: np.random.Generator) -> None:
        for beside in ("-wal", "-shm"):  # of the cache that lay here before
            path.with_name(path.name + beside).unlink(missing_ok=True)
        if rng.random() < 0.7:
            path.write_bytes(bytes_of(path.read_bytes(), rng))
            return
        database = sqlite3.connect(path)
        junk = ["x", 7.0, -1, b"\xff" * 9, 1e300, float("inf"), 2**62, "0.5"][int(rng.integers(8))]
        database.execute("UPDATE judgements SET score = ? WHERE key = ?", (junk, f"{int(rng.integers(40)):032x}"))
        database.commit()
        database.close()

    files = {"a.tree": {"size": 10, "sha256": "0" * 64}, "b/c.json": {"size": 1, "sha256": "1" * 64}}
    manifest = {"format": 1, "kind": "tree", "about": {"a": 1}, "files": files}

    def listed(path: Path) -> None:
        from treegym.untrusted import read_json

        shared = _shared(parse("user/name"), "dataset", "0" * 40, read_json(path))
        assert shared.size >= 0

    return {
        "journal": ((folder / "journal").read_bytes(), "", sealed_lines, ask),
        "judge cache": ((folder / "cache.sqlite").read_bytes(), ".sqlite", rows, look_up),
        "manifest": (json.dumps(manifest).encode(), ".json", json_file, listed),
    }


def _tables(folder: Path, env: Any) -> dict[str, Any]:
    from treegym.envs.token_tree.prompts import load_prompts
    from treegym.iterate.settings import load_settings
    from treegym.models.local.gguf_header import read_gguf_header
    from treegym.models.tokens.char_tokenizer import CharTokenizer
    from treegym.models.tokens.prompt_format import read_examples
    from treegym.rewards.learned.preference import Pair, read_pairs, write_pairs
    from treegym.rewards.spec import load as load_reward

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    pairs = [
        pair("general.architecture", 8, text("llama")), pair("llama.context_length", 4, struct.pack("<I", 128)),
        pair("tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("c")),
        pair("scores", 9, struct.pack("<IQ", 6, 2) + bytes(8)),
    ]  # fmt: skip
    tensors = text("w") + struct.pack("<I2QIQ", 2, 4, 6, 0, 0)
    gguf = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensors
    CharTokenizer().save(folder / "tokenizer.json")
    write_pairs(folder / "pairs.jsonl", [Pair(f"{i}+1=", f"{i + 1}", "0") for i in range(6)])
    reward = b"[reward]\nverifier = 1.0\n[reward.length]\nweight = -0.1\n"
    settings = b'rounds = 2\nalgorithm = "expert"\nsimulations = 4\nmax_tokens = 8\nevaluate = "bundled:test=4"\n'
    table = "prompt,answer,kind\n" + "".join(f'"{i}+1=",{i + 1},easy\n' for i in range(9))

    def tokens(path: Path) -> None:
        found = CharTokenizer.load(path)
        found.decode(range(found.vocab_size))
        found.fingerprint()
        found.pieces()

    return {
        "gguf header": (gguf, ".gguf", text_file, lambda p: void(read_gguf_header(p).name)),
        "characters": ((folder / "tokenizer.json").read_bytes(), ".json", json_file, tokens),
        "pairs": ((folder / "pairs.jsonl").read_bytes(), ".jsonl", text_file, lambda p: void(read_pairs(p))),
        "examples": ((folder / "pairs.jsonl").read_bytes().replace(b"chosen", b"answer"), ".jsonl", text_file,
                     lambda p: void(read_examples(p))),
        "reward toml": (reward, ".toml", text_file, lambda p: void(load_reward(p).names)),
        "iterate settings": (settings, ".toml", text_file, lambda p: void(load_settings(str(p), {}))),
        "csv prompts": (table.encode(), ".csv", text_file, lambda p: void(load_prompts(str(p)).roots)),
    }  # fmt: skip


def _recipes(folder: Path, env: Any) -> dict[str, Any]:
    import torch

    from treegym.optimize.candidates import apply, copied, parse
    from treegym.optimize.recipe import rebuild, save_weights
    from treegym.optimize.targets import load_module

    (folder / "net.py").write_text(MODULE)
    target = f"{folder / 'net.py'}:make"
    module, source = load_module(target, None)
    found: dict[str, Any] = {}
    for name, holds in (("original", "optimised"), ("int8_dynamic", "optimised"), ("bf16_linear", "original")):
        winner = apply(copied(module), parse(name), source(0))
        path = save_weights(folder / f"recipe-{name}", module, winner, source(0), holds=holds)

        def use(path: Path, name: str = name) -> None:
            with torch.inference_mode():
                rebuild(target, None, name, path)(*source(0))

        found[f"recipe {name}"] = (path.read_bytes(), ".safetensors", arrays_file, use)
    return found


def _models(folder: Path, env: Any) -> dict[str, Any]:
    from treegym.models.loading import DATA, load_model
    from treegym.rewards.learned.bradley_terry import RewardModel
    from treegym.rewards.learned.preference import Pair
    from treegym.rewards.learned.preference_training import CHECKPOINT, TrainingSettings, train_reward_model

    def speak(path: Path) -> None:
        said = load_model(str(path)).next_logprobs([[2, 3]]).astype(np.float64)
        assert abs(np.exp(said).sum() - 1.0) < 1e-2  # with several ends, all but one are said with probability 0

    def small(name: str) -> dict[str, bytes]:
        return {file: raw for file, raw in files_in(DATA / name).items() if file != "forge.json"}

    pairs = [Pair(f"{i}+1=", f"{i + 1}.", "0.") for i in range(8)]
    base = load_model("tiny-complete")
    settings = TrainingSettings(train="head", epochs=3, batch=4, checkpoint_every=2, held_out=0.0)
    train_reward_model(base, pairs, folder / "rm", settings=settings)

    class Stopped(Exception):
        pass

    def stop(step: int, _: float) -> None:
        if step == 3:
            raise Stopped

    with contextlib.suppress(Stopped):
        train_reward_model(base, pairs, folder / "half", settings=settings, after_step=stop)

    def resume(path: Path) -> None:
        path.replace(folder / "half" / CHECKPOINT)
        model = train_reward_model(base, pairs, folder / "half", settings=settings)
        assert np.isfinite(model.scores(["1+1="], ["2."])).all()

    def score(path: Path) -> None:
        assert np.isfinite(RewardModel.load(path).scores(["1+1="], ["2."])).all()

    half = (folder / "half" / CHECKPOINT).read_bytes()
    return {
        "model": (small("tiny-complete"), "-model", any_file, speak),
        "reward model": (files_in(folder / "rm"), "-rm", any_file, score),
        "reward model under way": (half, ".safetensors", metadata_file, resume),
    }


def _folders(folder: Path, env: Any) -> dict[str, Any]:
    from treegym.bench import chain
    from treegym.bench.execute import execute
    from treegym.bench.leaderboard import build_leaderboard
    from treegym.bench.results import ResultFolder
    from treegym.bench.suite import parse_suite
    from treegym.bench.verify import verify
    from treegym.envs.token_tree.grow.basis import ContextBasis, principal_components
    from treegym.envs.token_tree.grow.work import WorkDirectory
    from treegym.envs.token_tree.world import load_tree
    from treegym.iterate.loop import rows_of
    from treegym.sharing.kinds import KINDS

    table = {
        "name": "one", "seeds": [0, 1], "budget": {"env_steps": 40}, "checkpoints": 1,
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "num_envs": 4,
                  "kwargs": {"tree": "synthetic:roots=8,depth=3,branching=3,difficulty=0.2,seed=0"}}],
        "agents": [{"name": "greedy", "agent": "greedy_prior", "kwargs": {}}],
    }  # fmt: skip
    suite = parse_suite(table, where="here")
    bench = ResultFolder(folder / "bench")
    bench.prepare(suite)
    for job in suite.jobs():
        execute(job, out=bench.path)
    chain.append(bench.path, [job.id for job in suite.jobs()])

    def judged(path: Path) -> None:
        held = ResultFolder(path)
        build_leaderboard(held.suite(), list(held.summaries()))
        verify(path, replay=False)
        KINDS["bench"].examine(path)

    rounds = folder / "iterate"
    for number in range(3):
        (rounds / f"round-{number:03d}").mkdir(parents=True)
        row = {"round": number, "reward": 0.5, "accuracy": 0.1, "low": 0.0, "high": 0.2}
        (rounds / f"round-{number:03d}" / "row.json").write_text(json.dumps(row))
    (rounds / "settings.json").write_text(json.dumps({"rounds": 2, "algorithm": "expert"}))

    def told(path: Path) -> None:
        rows_of(path)
        KINDS["iterate"].examine(path)

    part = load_tree("synthetic:roots=2,depth=3,branching=2")
    plan = {"settings": {"a": 1}}
    growth = WorkDirectory(folder / "growth", plan)
    growth.save_shard(0, part)
    growth.save_shard(1, load_tree("synthetic:roots=3,depth=2,branching=2"))
    parts = [principal_components(np.random.default_rng(i).normal(size=(40, 8))) for i in range(2)]
    growth.basis(lambda: ContextBasis(*parts))

    def merged(path: Path) -> None:
        held = WorkDirectory(path, plan)
        basis = held.basis(lambda: ContextBasis(*parts))
        basis.contexts.encode(np.zeros((2, 8), np.float32))
        whole = held.merge(2, {"context_basis": basis.to_header()})
        held.save(whole, path.with_suffix(".out"))
        load_tree(str(path.with_suffix(".out"))).validate()

    return {
        "result folder": (files_in(bench.path), "-bench", any_file, judged),
        "iterate folder": (files_in(rounds), "-iterate", any_file, told),
        "growth": (files_in(folder / "growth"), "-growth", any_file, merged),
    }
