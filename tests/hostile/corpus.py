"""The worst cases: files that once crashed, hung, leaked or lied, or would, made here from sound ones, bit for bit.

Every one must be refused in a sentence. What is found goes in here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from formats import Format

__all__ = ["corpus"]

DEEP = 100_000
NESTED = b"[" * DEEP + b"]" * DEEP
Case = tuple[str, str, bytes | dict[str, bytes]]  # format, what is wrong, the file


def corpus(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    """Yields every case."""
    for make in (_searches, _checkpoints, _weights, _texts, _caches, _folders):
        yield from make(known, folder)


def packed(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    from treegym.files import put_arrays

    file = io.BytesIO()
    put_arrays(file, arrays, metadata)
    return file.getvalue()


def apart(raw: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from treegym.files import arrays_in

    arrays, metadata = arrays_in(np.frombuffer(raw, np.uint8), where="the good one", values=2**22)
    return {name: np.array(array) for name, array in arrays.items()}, metadata


def many_entries(count: int) -> bytes:
    """A header of so many tiny entries: a small file that takes a lot of memory to read."""
    header = b"{" + b",".join(b'"%x":{}' % i for i in range(count)) + b"}"
    return len(header).to_bytes(8, "little") + header


def _searches(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    good = known["search"].good
    assert isinstance(good, bytes)

    def with_array(name: str, change: Callable[[np.ndarray], Any]) -> bytes:
        arrays, metadata = apart(good)
        changed = change(arrays[name])
        arrays[name] = arrays[name] if changed is None else changed
        return packed(arrays, metadata)

    def with_note(**changes: Any) -> bytes:
        arrays, metadata = apart(good)
        note = json.loads(metadata["search"])
        note["options"] |= changes.pop("options", {})
        return packed(arrays, {"search": json.dumps(note | changes).replace('"beyond"', "1e999")})

    def put(place: tuple[int, ...], value: Any) -> Callable[[np.ndarray], None]:
        def change(array: np.ndarray) -> None:
            array[place] = value

        return change

    visited = tuple(int(i[0]) for i in np.nonzero(apart(good)[0]["tree.child"] > 0))
    for what, raw in {
        "a node is its own ancestor": with_array("tree.child", put(visited, 0)),
        "a node is its own child": with_array("tree.child", put((0, 1, 0), 1)),
        "a node has no children and does not end": with_array("tree.width", put((0, 1), 0)),
        "visits at the end of their type": with_array("tree.seen", put((0, 0), 2**31 - 1)),
        "no visits": with_array("tree.seen", put((0, 0), 0)),
        "less than nothing done": with_array("root.done", put((0, 0), -5)),
        "visits brought along from nowhere": with_array("root.before", put((0, 0), 2**31 - 1)),
        "noise without end": with_array("root.noisy", put((0, 0), np.nan)),
        "priors of zero": with_array("tree.prior", lambda array: array * 0),
        "a value of 3e38": with_array("tree.value", put((0, 0), 3e38)),
        "names of another type": with_array("root_ids", lambda array: array.astype(np.float64)),
        "budgets of another type": with_array("budget", lambda array: array.astype(np.float32)),
        "states without a size": with_array("state", lambda array: np.zeros((2**40, 0), np.int64)),
        "room for 2^40 nodes": with_note(capacity=2**40),
        "2^40 simulations": with_note(num_simulations=2**40),
        "more simulations than room": with_note(num_simulations=2**20),
        "2^30 leaves": with_note(options={"leaves": 2**30}),
        "calls beyond every number": with_note(calls="beyond"),
        "a seed that is a text": with_note(seed="x"),
        "2^20 actions": with_note(num_actions=2**20),
        "names nested deeply": with_note(known=[[0, 0, json.loads("[" * 900 + "]" * 900), 0]]),
        "names of nodes that are not there": with_note(known=[[0, 1, 5, 2**40]]),
    }.items():
        yield "search", what, raw


def _checkpoints(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    good = known["checkpoint ppo"].good
    assert isinstance(good, bytes)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        data, part = archive.read("data.json"), archive.read("arrays.safetensors")

    def zipped(data: bytes, part: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", how) as archive:
            archive.writestr("data.json", data)
            archive.writestr("arrays.safetensors", part)
        return file.getvalue()

    arrays, _ = apart(part)
    moment = next(name for name in arrays if name.endswith("exp_avg"))
    yield (
        "checkpoint ppo",
        "a moment of another shape",
        zipped(data, packed(arrays | {moment: np.zeros(1, np.float32)})),
    )
    weight = next(name for name in arrays if arrays[name].ndim == 2)
    yield "checkpoint ppo", "NaN weights", zipped(data, packed(arrays | {weight: arrays[weight] * np.nan}))
    yield "checkpoint ppo", "48 MiB of zeros", zipped(data, bytes(48 * 2**20), zipfile.ZIP_DEFLATED)
    yield "checkpoint ppo", "nested", zipped(NESTED, part, zipfile.ZIP_DEFLATED)
    yield "checkpoint ppo", "a million lists", zipped(b'{"x": [' + b"[]," * 2**20 + b"[]]}", part, zipfile.ZIP_DEFLATED)
    yield "checkpoint ppo", "many entries", zipped(data, many_entries(2**20), zipfile.ZIP_DEFLATED)
    whole = json.loads(data)
    whole["settings"]["vf_coef"] = 2**70
    yield "checkpoint ppo", "a coefficient beyond whole numbers", zipped(json.dumps(whole).encode(), part)
    zero = known["checkpoint zero"].good
    assert isinstance(zero, bytes)
    with zipfile.ZipFile(io.BytesIO(zero)) as archive:
        whole, part = json.loads(archive.read("data.json")), archive.read("arrays.safetensors")
    whole["settings"]["replay_ratio"] = 2**31
    yield "checkpoint zero", "updates without end", zipped(json.dumps(whole).encode(), part)


def _weights(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    for name in ("recipe original", "recipe int8_dynamic", "tree", "search", "reward model under way"):
        yield name, "many entries", many_entries(2**20)
    good = known["recipe int8_dynamic"].good
    assert isinstance(good, bytes)
    arrays, metadata = apart(good)
    scales = next(name for name in arrays if name.endswith("#scales"))
    less = {name: array for name, array in arrays.items() if name != scales}
    yield "recipe int8_dynamic", "no scales", packed(less, metadata)
    for what, array in {
        "one scale": arrays[scales][:1],
        "a million scales": np.ones(2**20, arrays[scales].dtype),
    }.items():
        yield "recipe int8_dynamic", what, packed(arrays | {scales: array}, metadata)
    good = known["reward model under way"].good
    assert isinstance(good, bytes)
    arrays, metadata = apart(good)
    for what, array in {"a moment of another shape": np.zeros(1, np.float32), "a moment too many": None}.items():
        name = "head.weight|exp_avg" if array is not None else "head.weight|max_exp_avg_sq"
        raw = packed(arrays | {name: np.zeros((1, 3), np.float32) if array is None else array}, metadata)
        yield "reward model under way", what, raw


def _texts(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    for name in ("suite", "reward toml", "iterate settings"):
        yield name, "nested", b"a = " + NESTED
        yield name, "a key of many parts", b"a" + b".a" * DEEP + b" = 1"
    for name in ("zones", "tracker", "reward", "manifest", "characters"):
        yield name, "nested", NESTED
        yield name, "half a pair", b'{"type": "char", "tokens": ["a", "b", "\\ud800"], "pad": "a", "eos": "b"}'
        yield name, "a number beyond numbers", b'{"a": 1e999, "kind": 1e999, "results": 1e999, "verifier": 1e999}'
        yield name, "many lists", b"[" + b"[]," * 2**20 + b"[]]"
    for name in ("prompts", "rollouts", "pairs", "examples"):
        yield name, "nested", NESTED
        yield name, "a line without end", b'{"prompt": "' + b"x" * (11 * 2**20) + b'"}'
    yield "training episodes", "blanks", gzip.compress(b" " * 2**26, mtime=0)
    yield "episodes", "blanks", gzip.compress(b" " * 2**26, mtime=0)
    yield "episodes", "an empty one many times", gzip.compress(b"", mtime=0) * 50_000
    yield "csv prompts", "many columns", b"prompt,answer" + b",x" * 500_000 + b"\n" + b"1+1=,2\n" * 1000
    yield "csv prompts", "a quote that never ends", b'prompt,answer\n"' + b"x" * (11 * 2**20)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9)
    yield "gguf header", "arrays in arrays", head + struct.pack("<IQ", 9, 1) * 50_000
    yield "gguf header", "2^60 strings", head + struct.pack("<IQ", 8, 2**60)
    yield "gguf header", "2^62 tensors", b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0)
    yield "gguf header", "a million keys", b"GGUF" + struct.pack("<IQQ", 3, 0, 2**20) + bytes(13 * 2**20)


def _caches(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    for what, statements in {
        "a view that never ends": [
            "CREATE VIEW judgements AS WITH RECURSIVE n(key, score) AS "
            "(SELECT 'a', 0.5 UNION ALL SELECT key || 'a', score FROM n) SELECT key, score FROM n"
        ],
        "a trigger": [
            "CREATE TABLE judgements (key TEXT PRIMARY KEY, score REAL NOT NULL)",
            "CREATE TRIGGER t AFTER INSERT ON judgements BEGIN UPDATE judgements SET score = 1.0; END",
        ],
        "a column made up of zeros": [
            "CREATE TABLE judgements (key TEXT PRIMARY KEY, score REAL AS (zeroblob(900000000)))",
            f"INSERT INTO judgements VALUES ('{0:032x}')",
        ],
        "a score of seven": [
            "CREATE TABLE judgements (key TEXT PRIMARY KEY, score REAL NOT NULL)",
            f"INSERT INTO judgements VALUES ('{0:032x}', 7.0)",
        ],
        "a score that is a text": [
            "CREATE TABLE judgements (key TEXT PRIMARY KEY, score REAL NOT NULL)",
            f"INSERT INTO judgements VALUES ('{0:032x}', 'high')",
        ],
    }.items():
        path = folder / "worst.sqlite"
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()
        yield "judge cache", what, path.read_bytes()
    for what, text in {"nested": NESTED, "no answer": b"5", "no key": b'{"key": [], "answer": 1}'}.items():
        check = hashlib.blake2b(text, digest_size=8).hexdigest().encode()
        yield "journal", what, check + b" " + text + b"\n"


def _folders(known: dict[str, Format], folder: Path) -> Iterator[Case]:
    model = known["model"].good
    assert isinstance(model, dict)
    config = json.loads(model["config.json"])
    for key, value in (
        ("num_hidden_layers", 10**9), ("vocab_size", 2**40), ("hidden_size", 2**20), ("intermediate_size", 2**28),
        ("num_hidden_layers", -1), ("head_dim", 2**30), ("max_position_embeddings", "x"),
    ):  # fmt: skip
        yield "model", f"{key} {value}", model | {"config.json": json.dumps(config | {key: value}).encode()}
    yield "model", "nested", model | {"config.json": NESTED}
    yield "model", "a tokenizer of lists", model | {"tokenizer.json": b"[" + b"[]," * 2**20 + b"[]]"}
    yield "model", "many entries", model | {"model.safetensors": many_entries(2**21)}
    learned = known["reward model"].good
    assert isinstance(learned, dict)
    about = json.loads(learned["reward_model.json"])
    for key, value in (("spread", 0.0), ("base", "nobody/no-such-model"), ("fingerprint", []), ("facts", None)):
        yield "reward model", key, learned | {"reward_model.json": json.dumps(about | {key: value}).encode()}
    arrays, _ = apart(learned["head.safetensors"])
    for name in arrays:
        raw = packed(arrays | {name: arrays[name] * np.nan})
        yield "reward model", f"{name} of NaN", learned | {"head.safetensors": raw}
    raw = packed(arrays | {"weight": np.full_like(arrays["weight"], 3e38)})
    yield "reward model", "weights whose sums are no numbers", learned | {"head.safetensors": raw}
    grown = known["growth"].good
    assert isinstance(grown, dict)
    arrays, metadata = apart(grown["shard-00001.tree"])
    column = next(name for name in arrays if "context" in name)
    less = {name: array for name, array in arrays.items() if name != column}
    yield "growth", "a shard without a column", grown | {"shard-00001.tree": packed(less, metadata)}
    basis = {f"{name}.{part}": np.zeros(3, np.float32) for name in ("contexts", "prompts") for part in ("mean", "axes")}
    yield "growth", "a basis of another shape", grown | {"basis.safetensors": packed(basis)}
    results = known["result folder"].good
    assert isinstance(results, dict)
    yield "result folder", "a chain nested deeply", results | {"chain.jsonl": NESTED + b"\n"}
    yield "result folder", "a suite nested deeply", results | {"suite.json": NESTED}
    run = next(name for name in results if name.endswith("--0.json"))
    unplayed = json.loads(results[run])
    unplayed["episodes"]["count"] = 0
    yield "result folder", "a run without an episode", results | {run: json.dumps(unplayed).encode()}
