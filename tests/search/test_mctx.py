"""Search equals mctx's: against golden files everywhere, against mctx itself where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.files import read_arrays
from treegym.search import Evaluation, Options, Session

GOLDEN = Path(__file__).parents[1] / "golden"


class ManyWorlds:
    """World p of a [P, S, A] table for root p; a state is p * S + s."""

    def __init__(self, tables: dict[str, np.ndarray]) -> None:
        self.tables = tables
        worlds, self.per_world, self.num_actions = tables["logits"].shape
        self.roots = np.arange(worlds) * self.per_world

    def at(self, name: str, states: np.ndarray) -> np.ndarray:
        return self.tables[name][states // self.per_world, states % self.per_world]

    def expand(self, states: np.ndarray) -> Evaluation:
        legal = np.ones((len(states), self.num_actions), bool)
        legal[states % self.per_world == 0] = ~self.tables["masked"][
            states[states % self.per_world == 0] // self.per_world
        ]
        return Evaluation(self.at("logits", states), self.at("value", states), legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
        rows = np.arange(len(states))
        after = states // self.per_world * self.per_world + self.at("next", states)[rows, actions]
        return _Moved(after, self.at("reward", states)[rows, actions], self.at("terminal", after))


class _Moved:
    def __init__(self, states: np.ndarray, reward: np.ndarray, terminated: np.ndarray) -> None:
        self.states, self.reward, self.terminated = states, reward, terminated


def ours(golden: dict[str, np.ndarray], method: str, simulations: int, discount: float) -> Any:
    world = ManyWorlds(golden)
    options = Options(discount=discount, max_considered=4, gumbel_scale=0.0)
    session = Session(world, world.roots, method=method, num_simulations=simulations, options=options)
    planner = session.planner
    if method == "gumbel":  # mctx's own noise, slot by slot
        for b in range(planner.size):
            slots = planner.trees.action[b, 0, : planner.trees.width[b, 0]]
            planner.roots.noisy[b, : len(slots)] += golden["gumbel.noise"][b, slots]
    return session.run()


def check(golden: dict[str, np.ndarray], simulations: int, discount: float, targets: Any = slice(None)) -> None:
    for method in ("puct", "gumbel"):
        result = ours(golden, method, simulations, discount)
        same = (result.visits == golden[f"{method}.visits"]).all(1)
        assert same.all(), f"{method}: visits differ at worlds {np.flatnonzero(~same)}"
        np.testing.assert_allclose(result.value, golden[f"{method}.value"], atol=1e-4)
        np.testing.assert_allclose(result.policy[targets], golden[f"{method}.policy"][targets], atol=1e-4)
    np.testing.assert_array_equal(result.action, golden["gumbel.action"])


def test_golden_worlds_give_mctx_visits_values_and_targets() -> None:
    golden, note = read_arrays(GOLDEN / "mctx.safetensors")
    assert len(golden["logits"]) >= 64
    check(golden, int(note["simulations"]), float(note["discount"]))


def test_golden_games_of_two_players_give_mctx_visits_values_and_targets() -> None:
    golden, note = read_arrays(GOLDEN / "mctx.safetensors")
    turns = {name.removeprefix("turns."): array for name, array in golden.items() if name.startswith("turns.")}
    # where actions are masked, mctx scales Q by those too, so that one world's target differs (docs/search.md)
    check({**golden, **turns}, int(note["simulations"]), -1.0, targets=~golden["masked"].any(1))


@pytest.mark.peers
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("discount", [0.95, -1.0, -0.9])
def test_fresh_worlds_give_mctx_visits_values_and_targets(module_of: Any, seed: int, discount: float) -> None:
    pytest.importorskip("mctx")
    maker = module_of("tests/golden/make.py")
    world = maker.tables(seed)
    check({**world, **maker.mctx_results(world, discount)}, maker.SIMULATIONS, discount)
