"""Several leaves per call: nearly as many as were asked for, and no worse a search for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.search import Options, Session

RULES = ["puct", "gumbel", "uct", "rents"]


@pytest.mark.parametrize(("leaves", "least"), [(8, 6.0), (32, 20.0)])
@pytest.mark.parametrize("method", RULES)
def test_one_root_fills_the_batch(worlds: Any, method: str, leaves: int, least: float) -> None:
    world = worlds.random_world(0, states=4000, masks=False)
    world.terminal[:] = False
    session = Session(world, np.array([0]), method=method, num_simulations=512, options=Options(leaves=leaves))
    assert session.run().visits.sum() == 512
    assert 512 / (session.calls - 1) >= least


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [8, 32])
@pytest.mark.parametrize("method", ["puct", "gumbel", "uct"])
def test_leaves_together_plan_as_well_as_one_by_one(worlds: Any, method: str, leaves: int) -> None:
    lost = np.zeros((2, 60))
    for seed in range(60):
        tree = worlds.random_tree(seed, roots=1, depth=8, branching=5)
        tree["reward"] = np.where(tree["terminal"], tree["reward"] ** 3, 0).astype(np.float32)
        exact = worlds.optimum(tree, 1.0)
        noise = np.random.default_rng(seed).normal(size=len(exact)) * 0.3
        tree["value"] = (exact + noise).astype(np.float32)
        world = worlds.TreeWorld(tree)
        for i, each in enumerate((1, leaves)):
            options = Options(leaves=each, gumbel_scale=0.0)
            found = Session(world, np.array([0]), method=method, num_simulations=128, options=options).run()
            child = tree["first_child"][0] + found.action[0]
            lost[i, seed] = exact[0] - tree["reward"][child] - exact[child]
    more = lost[1] - lost[0]
    assert more.mean() <= 2.5 * more.std() / np.sqrt(len(more)) + 1e-6


@pytest.mark.parametrize("solve", [False, True])
@pytest.mark.parametrize("method", RULES)
def test_leaves_taken_back_leave_no_trace(worlds: Any, method: str, solve: bool) -> None:
    world, roots = worlds.random_world(1), np.arange(3)
    world.terminal[:] = False  # an end found on the way needs no evaluation, and stays found
    options = Options(leaves=16, solve=solve)
    plain, disturbed = (
        Session(world, roots, method=method, num_simulations=200, seed=2, options=options) for _ in range(2)
    )
    for _ in range(6):
        plain.step()
        draws = disturbed.planner.roots.draws.copy()
        disturbed.planner.ask()
        disturbed.planner.take_back()
        disturbed.planner.roots.draws[:] = draws
        disturbed.step()
    for before, after in zip(plain.planner.trees, disturbed.planner.trees, strict=True):
        used = int(plain.planner.trees.size.max())
        if before.ndim == 2 and before.shape[1] > 1:
            np.testing.assert_array_equal(before[:, :used], after[:, :used])
    np.testing.assert_array_equal(plain.result().visits, disturbed.result().visits)
    np.testing.assert_array_equal(plain.result().value, disturbed.result().value)
