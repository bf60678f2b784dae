"""Beyond one machine: Ray's overhead, sleeping work on several nodes and the model of it, opening and walking a forest.

The nodes are raylets on this machine, so work that sleeps is what can scale here.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from common import cpu_seconds, emit, interleaved, median_ratio, parse, peer_absent, table
from scale_model import Cluster, makespan

import treegym  # registers the environments
from treegym.scale.cluster import connected
from treegym.scale.crew import work
from treegym.tree.forest import Forest
from treegym.tree.synthetic import synthetic_tree

HERE = Path(__file__).resolve().parent
STORE = 80 * 2**20  # bytes of a node's object store
LANES, STEPS = 1024, 6
OPEN = """
import sys, time, resource
from treegym.tree.forest import Forest
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before, start = resident(), time.perf_counter()
forest = Forest.open(sys.argv[1])
opened = time.perf_counter() - start
text = forest.text(forest.size - 1)
print(opened, time.perf_counter() - start, (resident() - before) / 2**20, forest.size)
"""


def sleeper(seconds: float) -> Callable[[int], int]:
    """Returns a job that takes so long and no core."""

    def job(number: int) -> int:
        time.sleep(seconds)
        return number

    return job


def took(address: str, jobs: int, seconds: float, workers: int | None = None) -> tuple[float, float]:
    """Returns the seconds that jobs took on a cluster, with and without connecting."""
    start = time.perf_counter()
    with connected(address) as ray:
        joined = time.perf_counter()
        done = sorted(a.value for a in work(ray, "scale:sleeper", seconds, list(range(jobs)), workers=workers))
        end = time.perf_counter()
    assert done == list(range(jobs))
    return time.perf_counter() - start, end - joined


def on_nodes(count: int, jobs: int, seconds: float) -> float:
    """Returns the seconds that jobs took on so many nodes of one core each."""
    from ray.cluster_utils import Cluster as Raylets

    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    raylets = Raylets(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            raylets.add_node(num_cpus=1, object_store_memory=STORE)
        return took(raylets.address, jobs, seconds)[1]
    finally:
        raylets.shutdown()


def ray_figures(quick: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns Ray's overhead, the scaling over nodes, and how far the model is from it."""
    length = 0.5 if quick else 1.0
    jobs = 40 if quick else 120
    whole, _ = took("local", jobs, length, workers=2)
    ideal = jobs * length / 2
    times = {nodes: on_nodes(nodes, jobs, length) for nodes in ((1, 4) if quick else (1, 2, 4))}
    opening = times[1] - jobs * length  # what one worker costs besides its jobs
    cells = []
    for nodes, seconds in times.items():
        told = makespan(jobs, length, Cluster(workers=nodes, opening=opening))
        cells.append({"nodes": nodes, "seconds": seconds, "speedup": times[1] / seconds, "model": told,
                      "model over real": told / seconds})  # fmt: skip
    figures = {"ray_overhead": whole / ideal, "speedup_4_nodes": times[1] / times[4]}
    figures["model_error"] = max(abs(cell["model over real"] - 1) for cell in cells)
    return figures, cells


def walked(env: Any, roots: np.ndarray) -> None:
    """Begins all lanes at given roots and goes some steps, always to the first child."""
    actions = np.zeros(LANES, np.int64)
    env.reset(seed=0, options={"roots": roots})
    for _ in range(STEPS):
        env.step(actions)


def forest_figures(quick: bool, folder: Path) -> dict[str, float]:
    """Returns how a forest opens, 10^8 nodes truly and 10^9 of links, and what stepping in it costs."""
    roots, parts, seeds = (85, 4, 2) if quick else (850, 98, 7)
    given = os.environ.get("TREEGYM_FOREST")  # one made earlier
    true = Path(given) if given else folder / "true"
    if not given:
        true.mkdir()
        for number in range(parts):
            file = true / f"part-{number:05d}.tree"
            if number < seeds:
                synthetic_tree(roots=roots, depth=10, branching=16, width=8, seed=number).save(file)
            else:
                file.write_bytes((true / f"part-{number % seeds:05d}.tree").read_bytes())
        Forest.gather(true)
    large = folder / "large"
    large.mkdir()
    manifest = json.loads((true / "forest.json").read_bytes())
    names = [part["file"] for part in manifest["parts"]]
    repeated = []
    for copy in range(10):
        for part in manifest["parts"]:
            repeated.append({**part, "file": f"{copy}-{part['file']}"})
            (large / repeated[-1]["file"]).symlink_to(true.absolute() / part["file"])
    (large / "forest.json").write_text(json.dumps({**manifest, "parts": repeated}))
    figures = {}
    for name, place in (("1e8", true), ("1e9", large)):
        done = [subprocess.run([sys.executable, "-c", OPEN, str(place)], capture_output=True, text=True, check=True)
                for _ in range(3)]  # fmt: skip
        rows = [[float(word) for word in run.stdout.split()] for run in done]
        figures[f"open_ms_{name}"] = 1e3 * statistics.median(row[0] for row in rows)
        figures[f"open_and_read_ms_{name}"] = 1e3 * statistics.median(row[1] for row in rows)
        figures[f"open_mb_{name}"] = statistics.median(row[2] for row in rows)
        figures[f"nodes_{name}"] = rows[0][3]
    single = gym.make_vec("TokenTree-v0", num_envs=LANES, tree=str(true / names[0]))
    many = gym.make_vec("TokenTree-v0", num_envs=LANES, tree=str(true))
    world = many.unwrapped.world
    world.world(1)
    start = world.tree.root_start
    spread = {
        "one file": (single, np.arange(LANES) % start[1]),
        "a tree": (many, np.arange(LANES) % start[1]),
        "two trees": (many, np.arange(LANES) % start[1] + start[1] * (np.arange(LANES) % 2)),
    }
    contestants = {name: partial(walked, env, roots) for name, (env, roots) in spread.items()}
    times = interleaved(contestants, rounds=5 if quick else 31, clock=cpu_seconds)
    figures["step_ratio_in_a_tree"] = median_ratio(times["a tree"], times["one file"])
    figures["step_ratio_in_two_trees"] = median_ratio(times["two trees"], times["one file"])
    figures["load_cpu_s_per_1e6_nodes"] = statistics.median(
        cpu_seconds(partial(world.world, n)) / world.tree.parts[n]["nodes"] * 1e6 for n in (2, 3)
    )
    return figures


def main() -> None:
    args = parse(__doc__)
    try:
        import ray  # noqa: F401
    except ImportError:
        peer_absent("ray", 'pip install "treegym[ray]"')
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    print(f"treegym {treegym.__version__}")
    figures, cells = ray_figures(args.quick)
    with tempfile.TemporaryDirectory() as folder:
        figures |= forest_figures(args.quick, Path(folder))
    print(table(cells))
    emit("scale", figures, cells)


if __name__ == "__main__":
    main()
