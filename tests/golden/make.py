"""Makes the golden search results from mctx: ``python tests/golden/make.py`` (needs mctx and jax; see `make peers`).

Each of 64 random worlds is a table: logits, values, rewards, next states, terminals, a mask at the root and Gumbel
noise. mctx searches it with MuZero's PUCT and with Gumbel MuZero; what it found is stored beside the tables, so that
equality is tested without mctx being installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from treegym.files import write_arrays

HERE = Path(__file__).parent
WORLDS, STATES, ACTIONS = 64, 48, 7
SIMULATIONS = 50
DISCOUNT = 0.95
TURNS = -1.0  # two players in turn, as mctx has it: rewards and values are the mover's


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the random worlds: [P, S, A] tables, state 0 the root."""
    rng = np.random.default_rng(seed)
    shape = (WORLDS, STATES, ACTIONS)
    terminal = rng.random((WORLDS, STATES)) < 0.1
    terminal[:, 0] = False
    masked = rng.random((WORLDS, ACTIONS)) < 0.25
    masked[:, 0] &= ~masked[:, 1:].all(1)
    masked[:16] = False  # a quarter of the worlds without a mask
    return {
        "logits": rng.normal(size=shape).astype(np.float32) * 1.5,
        "reward": rng.normal(size=shape).astype(np.float32),
        "next": rng.integers(1, STATES, size=shape).astype(np.int32),
        "value": rng.normal(size=(WORLDS, STATES)).astype(np.float32) * 2,
        "terminal": terminal,
        "masked": masked,
    }


def mctx_results(world: dict[str, np.ndarray], discount: float = DISCOUNT) -> dict[str, np.ndarray]:
    """Returns what mctx finds: visits, values, targets and actions, and the Gumbel noise it drew."""
    import jax
    import jax.numpy as jnp
    import mctx

    logits, reward, next_state, value, terminal = (
        jnp.asarray(world[name]) for name in ("logits", "reward", "next", "value", "terminal")
    )
    rows = jnp.arange(WORLDS)

    def recurrent(params: Any, key: Any, action: Any, state: Any) -> Any:
        after = next_state[rows, state, action]
        ended = terminal[rows, after]
        step = mctx.RecurrentFnOutput(
            reward=reward[rows, state, action],
            discount=jnp.where(ended, 0.0, discount),
            prior_logits=logits[rows, after],
            value=jnp.where(ended, 0.0, value[rows, after]),
        )
        return step, after

    root = mctx.RootFnOutput(prior_logits=logits[:, 0], value=value[:, 0], embedding=jnp.zeros(WORLDS, jnp.int32))
    masked = jnp.asarray(world["masked"])
    key = jax.random.PRNGKey(7)
    puct = mctx.muzero_policy(None, key, root, recurrent, SIMULATIONS, invalid_actions=masked, dirichlet_fraction=0.0)
    gumbel = mctx.gumbel_muzero_policy(
        None, key, root, recurrent, SIMULATIONS, invalid_actions=masked, max_num_considered_actions=4
    )
    results = {"gumbel.noise": np.asarray(gumbel.search_tree.extra_data.root_gumbel)}
    for name, found in (("puct", puct), ("gumbel", gumbel)):
        tree = found.search_tree
        results[f"{name}.visits"] = np.asarray(tree.children_visits[:, 0])
        results[f"{name}.value"] = np.asarray(tree.node_values[:, 0])
        results[f"{name}.policy"] = np.asarray(found.action_weights)
    results["gumbel.action"] = np.asarray(gumbel.action)
    return {key: np.ascontiguousarray(array) for key, array in results.items()}


def main() -> None:
    """Writes ``mctx.safetensors`` beside this file."""
    world = tables()
    note = {"simulations": str(SIMULATIONS), "discount": str(DISCOUNT), "considered": "4", "made by": "mctx 0.0.71"}
    turns = {f"turns.{name}": array for name, array in mctx_results(world, TURNS).items()}
    write_arrays(HERE / "mctx.safetensors", {**world, **mctx_results(world), **turns}, note)


if __name__ == "__main__":
    main()
