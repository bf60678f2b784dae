"""A peer at work: reads one JSON request a line, answers with the CPU seconds one search took and its root visits.

    {"peer": "mctx", "setting": "batched", "method": "puct", "batch": 8, "actions": 8, "simulations": 32}

Run by `search_speed` with the peers' interpreter. Both peers plan with the network of `search_network`; LightZero's
C++ primitives are driven as its own `search` does, with faster gathering of latent states.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from search_network import LARGE, STATE, random_roots, random_weights

DISCOUNT = 0.997
CONSIDERED = 16


def mctx_search(
    setting: str, method: str, batch: int, actions: int, simulations: int, large: bool = False
) -> Callable[[], np.ndarray]:
    """Returns a compiled mctx search: whole batch at once, root by root (`lax.map`), or in chunks of 8 roots."""
    import jax
    import jax.numpy as jnp
    import mctx

    weights = jax.tree.map(jnp.asarray, random_weights(actions, **(LARGE if large else {})))

    def judge(state: Any) -> Any:
        value = state @ weights.value
        return state @ weights.p, value / (1 + jnp.abs(value))

    def recurrent(params: Any, key: Any, action: Any, state: Any) -> Any:
        hidden = jax.nn.relu(state @ weights.w + weights.u[action])
        for layer in weights.d:
            hidden = jax.nn.relu(hidden @ layer)
        after = hidden @ weights.v
        after = after / (1 + jnp.abs(after))
        logits, value = judge(after)
        discount = jnp.full_like(value, DISCOUNT)
        step = mctx.RecurrentFnOutput(reward=hidden @ weights.r, discount=discount, prior_logits=logits, value=value)
        return step, after

    def search(states: Any) -> Any:
        logits, value = judge(states)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=states)
        key = jax.random.PRNGKey(0)
        if method == "puct":
            found = mctx.muzero_policy(None, key, root, recurrent, simulations, dirichlet_fraction=0.0)
        else:
            found = mctx.gumbel_muzero_policy(
                None, key, root, recurrent, simulations, max_num_considered_actions=CONSIDERED, gumbel_scale=0.0
            )
        return found.search_tree.children_visits[:, 0]

    chunk = {"batched": batch, "map": 1, "chunked": min(8, batch)}[setting]
    roots = jnp.asarray(random_roots(batch)).reshape(batch // chunk, chunk, STATE)
    run = jax.jit(lambda chunks: jax.lax.map(search, chunks) if len(chunks) > 1 else search(chunks[0]))
    return lambda: np.asarray(run(roots)).reshape(batch, actions)


@functools.cache
def _extension(name: str) -> Any:
    """Loads one of LightZero's compiled trees without importing the package (which would want torch and more)."""
    folder = Path(sysconfig.get_paths()["purelib"]) / "lzero" / "mcts" / "ctree"
    files = sorted(folder.glob(f"*/{name}.*.so"))
    if not files:
        raise ImportError(f"LightZero's {name} is not in {folder}")
    spec = importlib.util.spec_from_file_location(name, files[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lightzero_search(
    setting: str, method: str, batch: int, actions: int, simulations: int, large: bool = False
) -> Callable[[], np.ndarray]:
    """Returns a search by LightZero's C++ primitives, the network in NumPy."""
    weights, states = random_weights(actions, **(LARGE if large else {})), random_roots(batch)
    legal = [list(range(actions)) for _ in range(batch)]
    tree = _extension("mz_tree" if method == "puct" else "gmz_tree")

    def run() -> np.ndarray:
        logits, value = weights.judge(states)
        roots = tree.Roots(batch, legal)
        to_play, zeros = [-1] * batch, [0.0] * batch
        if method == "puct":
            roots.prepare_no_noise(zeros, logits.tolist(), to_play)
        else:
            roots.prepare_no_noise(zeros, value.tolist(), logits.tolist(), to_play)
        stats = tree.MinMaxStatsList(batch)
        stats.set_delta(0.01)
        pool = np.empty((simulations + 1, batch, STATE), np.float32)
        pool[0] = states
        for simulation in range(simulations):
            results = tree.ResultsWrapper(num=batch)
            if method == "puct":
                at, row, action, turn = tree.batch_traverse(roots, 19652, 1.25, DISCOUNT, stats, results, to_play)
            else:
                at, row, action, turn = tree.batch_traverse(roots, simulations, CONSIDERED, DISCOUNT, results, to_play)
            after, reward = weights.step(pool[at, row], np.asarray(action))
            pool[simulation + 1] = after
            logits, value = weights.judge(after)
            back = tree.batch_backpropagate if method == "puct" else tree.batch_back_propagate
            back(simulation + 1, DISCOUNT, reward.tolist(), value.tolist(), logits.tolist(), stats, results, turn)
        return np.asarray(roots.get_distributions())

    return run


@functools.lru_cache(maxsize=2)  # the cell at work: compiled programs and buffers of earlier cells are let go
def prepared(
    peer: str, setting: str, method: str, batch: int, actions: int, simulations: int, large: bool = False
) -> Any:
    """Returns the warmed-up search of a cell."""
    make = {"mctx": mctx_search, "lightzero": lightzero_search}[peer]
    run = make(setting, method, batch, actions, simulations, large)
    run()
    return run


def main() -> None:
    """Answers requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        visits_wanted, repeat = request.pop("visits", False), request.pop("repeat", 1)
        try:
            run = prepared(**request)
        except ImportError as error:
            print(json.dumps({"absent": str(error)}), flush=True)
            continue
        start, wall = time.process_time(), time.perf_counter()
        for _ in range(repeat):
            visits = run()
        answer = {"seconds": (time.process_time() - start) / repeat, "wall": (time.perf_counter() - wall) / repeat}
        print(json.dumps({**answer, "visits": visits.tolist()} if visits_wanted else answer), flush=True)


if __name__ == "__main__":
    main()
