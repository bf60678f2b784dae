"""How TokenTree scales: bytes per node, opening huge files, step cost by size, backward induction."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
from common import cpu_seconds, emit, interleaved, parse, table
from env_steps import stepper

from treegym.envs.token_tree.vector import TokenTreeVectorEnv
from treegym.tree.columns import COLUMNS
from treegym.tree.solve import solve
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree

ROOTS = {10_000: 9, 100_000: 85, 1_000_000: 850, 10_000_000: 8500}  # prompts that make about so many nodes
OPEN = """
import sys, time, resource
from treegym.tree.token_tree import TokenTree
import treegym.tree.storage, treegym.tree.validation
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before, start = resident(), time.perf_counter()
tree = TokenTree.open(sys.argv[1])
path = tree.path(tree.size - 1)
print((time.perf_counter() - start) * 1e3, (resident() - before) / 2**20, len(path))
"""


def bytes_per_node(tree: TokenTree) -> float:
    """Returns the bytes of all columns but the teachers', a node."""
    return sum(tree.column(name).nbytes for name in tree.column_names if name != "teacher_logp") / tree.size


def opening(path: Path) -> list[float]:
    """Returns milliseconds, megabytes and a path's length for opening a file in a process of its own."""
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def tiled(tree: TokenTree, copies: int) -> TokenTree:
    """Returns a tree of many copies of another: a quick way to a huge file."""
    from treegym.tree.editing import merge

    return merge([tree] * copies)


def main() -> None:
    args = parse(__doc__)
    sizes = [size for size in ROOTS if not args.quick or size <= 1_000_000]
    largest = sizes[-1]
    trees = {size: synthetic_tree(roots=ROOTS[size], depth=10, branching=16, width=8) for size in sizes[:3]}
    if largest not in trees:
        trees[largest] = tiled(trees[1_000_000], 10)
    figures = {"bytes_per_node": bytes_per_node(trees[1_000_000])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "huge.tree"
        trees[largest].save(path)
        opened = [opening(path) for _ in range(3 if args.quick else 7)]
    figures["open_ms_1e7"] = statistics.median(row[0] for row in opened)
    figures["open_rss_mb_1e7"] = statistics.median(row[1] for row in opened)
    # The same number of distinct nodes is stepped over again and again in the small tree (all in cache) and the large
    # one (none in cache); "warm" keeps the large tree's lanes under few prompts, so that what differs is size alone.
    work = {}
    for size in sizes[:3]:
        env = gym.make_vec(
            "TokenTree-v0", num_envs=1024, tree=f"synthetic:roots={ROOTS[size]},depth=10,branching=16,width=8"
        )
        work[f"{size:,} nodes"] = stepper(env, 60)
        few = TokenTreeVectorEnv(1024, tree=trees[size])
        few.unwrapped.world.pool = few.unwrapped.world.pool[:5]
        work[f"{size:,} nodes, 5 prompts"] = stepper(few, 60)
    times = interleaved(work, rounds=5 if args.quick else 21, clock=cpu_seconds)
    cells = [{"tree": name, "ns/step": statistics.median(t) / 60 / 1024 * 1e9} for name, t in times.items()]
    cost = {cell["tree"]: cell["ns/step"] for cell in cells}
    figures["step_cost_growth_1e4_1e6"] = cost["1,000,000 nodes, 5 prompts"] / cost["10,000 nodes, 5 prompts"]
    figures["step_cost_growth_1e4_1e6_with_cache_misses"] = cost["1,000,000 nodes"] / cost["10,000 nodes"]
    reward = np.nan_to_num(trees[1_000_000].verdict)
    solve(trees[10_000], np.zeros(trees[10_000].size))
    seconds = [cpu_seconds(lambda: solve(trees[1_000_000], reward)) for _ in range(3 if args.quick else 11)]
    figures["backward_nodes_per_s"] = trees[1_000_000].size / statistics.median(seconds)
    print(f"columns: {', '.join(COLUMNS)}; largest file: {trees[largest].size:,} nodes, {largest:,} asked for\n")
    print(table(cells))
    emit("tree_scale", figures, cells)


if __name__ == "__main__":
    main()
