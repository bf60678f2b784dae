"""Files from outside are untrusted: whatever is in them, opening gives a clear error or a tree that validates."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401
from treegym.errors import DataError, TreeGymError
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree


def _header(data: bytes) -> tuple[dict, int]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def _with_header(data: bytes, header: dict) -> bytes:
    _, start = _header(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[start:]


def _mutate(data: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.integers(7)
    if kind == 0:  # bit flips anywhere
        changed = bytearray(data)
        for _ in range(rng.integers(1, 9)):
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == 1:  # truncation
        return data[: rng.integers(len(data))]
    if kind == 2:  # a header length out of thin air
        return int(rng.integers(0, 2**63)).to_bytes(8, "little") + data[8:]
    header, start = _header(data)
    names = [name for name in header if name != "__metadata__"]
    name = names[rng.integers(len(names))]
    if kind == 3:  # a huge or negative shape
        header[name]["shape"][0] = int(rng.integers(-5, 2**60))
        return _with_header(data, header)
    if kind == 4:  # offsets that do not fit
        header[name]["data_offsets"] = [int(x) for x in rng.integers(-9, 2**40, size=2)]
        return _with_header(data, header)
    if kind == 5:  # an entry of a wrong kind, or none
        header[name] = [None, [], "x", {"dtype": "F32"}, 7][rng.integers(5)]
        return _with_header(data, header)
    # Cyclic parents, wild links, huge counts: a structural column overwritten at random.
    column = ["parent", "first_child", "child_count", "depth", "token", "root_node"][rng.integers(6)]
    low, high = (start + offset for offset in header[column]["data_offsets"])
    changed = bytearray(data)
    width = 2 if column in ("child_count", "depth") else 4
    at = low + width * int(rng.integers((high - low) // width))
    changed[at : at + width] = int(rng.integers(0, 256**width)).to_bytes(width, "little")
    return bytes(changed)


@pytest.mark.parametrize("mutants", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_never_crash_hang_or_allocate(tmp_path: Path, mutants: int) -> None:
    path = tmp_path / "seed.tree"
    synthetic_tree(roots=3, depth=4, branching=3, width=2, seed=1).save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    TokenTree.open(path).validate()  # compiles what it needs, which takes more memory than any tree here
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for _ in range(mutants):
        path.write_bytes(_mutate(data, rng))
        try:
            tree = TokenTree.open(path)
            tree.validate()
        except DataError:
            refused += 1
            continue
        # What passed can be walked: no index leaves the tree.
        assert all(len(tree.path(node)) == tree.depth[node] for node in range(0, tree.size, 7))
        assert len(tree.prompts) == tree.num_roots
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 1024, f"opening mutants grew the process by {grown} KiB"
    assert mutants * 0.5 < refused < mutants


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in (
        b"",
        b"x",
        b"\0" * 100,
        b"{}" * 50,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
    ):
        (tmp_path / "no.tree").write_bytes(content)
        with pytest.raises(DataError):
            TokenTree.open(tmp_path / "no.tree")


@pytest.mark.parametrize("view", ["features", "tokens"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_random_steps_break_no_invariant(view: str, mode: str) -> None:
    lanes, steps = 1024, 170  # six combinations: a million steps in all
    env = gym.make_vec(
        "TokenTree-v0",
        num_envs=lanes,
        tree="synthetic:roots=50,depth=7,branching=6,seed=2",
        view=view,
        autoreset_mode=mode,
        max_tokens=6,
    )
    world = env.unwrapped.world
    rng = np.random.default_rng(3)
    seen, _ = env.reset(seed=0)
    done = np.zeros(lanes, bool)
    low, high = world.low, world.high
    for _ in range(steps):
        if mode == "Disabled" and done.any():
            seen, _ = env.reset(options={"reset_mask": done})
        actions = rng.integers(-1, world.num_actions + 1, size=lanes)  # many of them illegal
        before = env.unwrapped.nodes
        seen, reward, terminated, truncated, info = env.step(actions)
        after = env.unwrapped.nodes
        assert (seen["observations"] >= low).all()
        assert (seen["observations"] <= high).all()
        assert np.isfinite(reward).all()
        assert seen["action_mask"].any(1).all()
        assert not (terminated & truncated).any()
        assert (env.unwrapped.lanes.steps <= 6).all()
        moved = (world.tree.parent[after] == before) | (after == before) | (world.tree.parent[after] == -1)
        assert (moved | (mode == "SameStep")).all()
        assert (info["illegal_action"] <= (reward < 0)).all()
        if view == "tokens":
            assert (
                (seen["children"] >= 0) == (np.arange(world.num_actions) < world.tables.child_count[after][:, None])
            ).all()
        done = terminated | truncated


def test_errors_share_one_base() -> None:
    assert issubclass(DataError, TreeGymError)
