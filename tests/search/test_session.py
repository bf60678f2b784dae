"""Sessions: budgets, several leaves, telling in any order, trees kept between moves, transpositions, saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.files import read_arrays, write_arrays
from treegym.search import Evaluation, Options, Planner, Session, Transition, search

METHODS = ["puct", "gumbel", "uct", "rents"]


def start(worlds: Any, seed: int = 0, roots: int = 5) -> tuple[Any, np.ndarray]:
    world = worlds.random_world(seed)
    return world, np.flatnonzero(~world.terminal)[:roots]


def same(first: Any, second: Any) -> None:
    for name, a, b in zip(first._fields, first, second, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_in_parts_equals_a_run_in_one(worlds: Any, method: str) -> None:
    world, roots = start(worlds)
    whole = Session(world, roots, method=method, num_simulations=40, seed=3).run()
    parts = Session(world, roots, method=method, num_simulations=40, seed=3)
    for simulations in (1, 7, 12):
        parts.run(simulations=simulations)
        assert parts.planner.simulations <= 20
    same(parts.run(), whole)


def test_budgets_in_calls_and_seconds_stop_early_with_a_valid_answer(worlds: Any) -> None:
    world, roots = start(worlds)
    session = Session(world, roots, method="puct", num_simulations=100)
    result = session.run(model_calls=5)
    assert session.calls == 6  # the roots' call and five more
    assert world.calls == 6
    assert result.simulations <= 5
    assert world.legal[roots, result.action].all()
    assert search(world, roots, method="gumbel", num_simulations=10**6, seconds=0.05).visits.sum() > 0


@pytest.mark.parametrize("method", METHODS)
def test_several_leaves_save_calls_and_spend_the_same_simulations(worlds: Any, method: str) -> None:
    world, roots = start(worlds)
    search(world, roots, method=method, num_simulations=64, leaves=8)
    batched = world.calls
    world.calls = 0
    result = search(world, roots, method=method, num_simulations=64)
    assert batched < 0.5 * world.calls
    many = search(world, roots, method=method, num_simulations=64, leaves=8)
    np.testing.assert_array_equal(many.visits.sum(1), 64)
    np.testing.assert_array_equal(result.visits.sum(1), 64)


@pytest.mark.parametrize("leaves", [1, 4])
def test_leaves_may_be_told_in_any_order_and_in_parts(worlds: Any, leaves: int) -> None:
    world, roots = start(worlds)
    options = Options(leaves=leaves)
    expected = Session(world, roots, method="puct", num_simulations=32, options=options).run()
    planner = Planner(world.expand(roots), method="puct", num_simulations=32, options=options)
    states = {b * planner.capacity: int(state) for b, state in enumerate(roots)}
    rng = np.random.default_rng(0)
    while len((asked := planner.ask()).roots):
        before = np.array([states[int(p)] for p in asked.parents])
        moved = world.step(before, asked.actions)
        order = rng.permutation(len(before))
        for part in np.array_split(order, min(3, len(order))):
            alive = part[~moved.terminated[part]]
            given = world.expand(moved.states[alive]) if len(alive) else None
            numbers = planner.tell(moved.reward[part], moved.terminated[part], given, leaves=part)
        states.update(zip(numbers.tolist(), moved.states.tolist(), strict=True))
    same(planner.result(), expected)


def test_telling_the_wrong_leaves_is_refused(worlds: Any) -> None:
    world, roots = start(worlds)
    planner = Planner(world.expand(roots), method="puct", num_simulations=8)
    planner.ask()
    with pytest.raises(ConfigError, match="asked for and not told"):
        planner.ask()
    zero, ended = np.zeros(1), np.ones(1, bool)
    planner.tell(zero, ended, None, leaves=np.array([2]))
    with pytest.raises(ConfigError, match="told twice"):
        planner.tell(zero, ended, None, leaves=np.array([2]))
    with pytest.raises(ConfigError, match="out of range"):
        planner.tell(zero, ended, None, leaves=np.array([99]))
    with pytest.raises(ConfigError, match="without an evaluation"):
        planner.tell(zero, ~ended, None, leaves=np.array([1]))


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_search_goes_on_as_if_it_had_never_stopped(worlds: Any, method: str, tmp_path: Path) -> None:
    world, roots = start(worlds)
    whole = Session(world, roots, method=method, num_simulations=48, seed=2).run()
    session = Session(world, roots, method=method, num_simulations=48, seed=2)
    session.run(simulations=20)
    session.save(tmp_path / "search.safetensors")
    again = Session.load(tmp_path / "search.safetensors", world)
    same(again.result(), session.result())
    same(again.run(), whole)


def test_damaged_saves_are_refused(worlds: Any, tmp_path: Path) -> None:
    world, roots = start(worlds)
    session = Session(world, roots, method="puct", num_simulations=16)
    session.run(simulations=8)
    file = tmp_path / "search.safetensors"
    session.save(file)
    arrays, note = read_arrays(file, mmap=False)
    for name, value, message in (
        ("tree.child", 9999, "a child lies outside its tree"),
        ("tree.width", 99, "more children than there is room for"),
        ("tree.action", -3, "an action is out of range"),
        ("tree.size", 10**6, "larger than their room"),
        ("tree.q", np.nan, "q is not finite"),
    ):
        broken = {key: array.copy() for key, array in arrays.items()}
        broken[name][:] = value
        write_arrays(file, broken, note)
        with pytest.raises(DataError, match=message):
            Session.load(file, world)
    write_arrays(file, {key: array for key, array in arrays.items() if key != "tree.q"}, note)
    with pytest.raises(DataError, match="damaged"):
        Session.load(file, world)
    write_arrays(file, arrays, {"search": json.dumps({"format": "else"})})
    with pytest.raises(DataError, match="expected 'treegym search 1'"):
        Session.load(file, world)


def test_a_kept_tree_carries_its_visits_to_the_next_move(worlds: Any) -> None:
    tree = worlds.random_tree(3, roots=4, depth=5, branching=4)
    world = worlds.TreeWorld(tree)
    roots = np.arange(4)
    session = Session(world, roots, method="puct", num_simulations=64)
    first = session.run()
    after = world.step(roots, first.action)
    assert not after.terminated.any()
    below = first.visits[np.arange(4), first.action]
    judged = world.judged
    kept = session.advance(first.action, after.states)
    assert kept.all()
    assert world.judged == judged  # nothing was judged again
    # the new root was visited once when it was found and once for each visit that went on
    np.testing.assert_array_equal(session.result().visits.sum(1), below - 1)
    second = session.run()
    np.testing.assert_array_equal(second.visits.sum(1), below - 1 + 64)
    assert world.legal[after.states, second.action].all()


def test_a_move_never_visited_starts_afresh(worlds: Any) -> None:
    world = worlds.random_world(7, masks=False)
    world.terminal[:] = False
    roots, options = np.arange(5), Options(max_considered=1)
    session = Session(world, roots, method="gumbel", num_simulations=4, options=options)
    moves = session.run().visits.argmin(1)  # one action was considered, so these were not
    after = world.step(roots, moves)
    assert not session.advance(moves, after.states).any()
    fresh = Session(world, after.states, method="gumbel", num_simulations=4, options=options).run()
    np.testing.assert_array_equal(session.run().visits, fresh.visits)
    with pytest.raises(ConfigError, match="is not legal at root"):
        session.advance(np.full(5, 99), after.states)


class Lattice:
    """Walks on a grid: many ways lead to the same point, so states repeat."""

    num_actions = 2

    def __init__(self, steps: int = 6) -> None:
        self.steps, self.judged = steps, 0
        rng = np.random.default_rng(5)
        self.pay = rng.random((steps + 1, steps + 1)).astype(np.float32)  # by (rights, ups)

    def expand(self, states: np.ndarray) -> Evaluation:
        self.judged += len(states)
        size = len(states)
        return Evaluation(np.zeros((size, 2), np.float32), np.zeros(size, np.float32), np.ones((size, 2), bool))

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        after = states.copy()
        after[np.arange(len(states)), actions] += 1
        return Transition(after, self.pay[after[:, 0], after[:, 1]], after.sum(1) >= self.steps)

    def key(self, states: np.ndarray) -> np.ndarray:
        return states[:, 0] * 100 + states[:, 1]

    def optimum(self) -> float:
        best = np.zeros((self.steps + 1, self.steps + 1))
        for total in range(self.steps - 1, -1, -1):
            for x in range(total + 1):
                y = total - x
                best[x, y] = max(self.pay[x + 1, y] + best[x + 1, y], self.pay[x, y + 1] + best[x, y + 1])
        return float(best[0, 0])


def test_transpositions_judge_each_state_once_and_find_the_optimum() -> None:
    plain, joined = Lattice(), Lattice()
    root = np.zeros((1, 2), np.int64)
    options = {"method": "uct", "num_simulations": 400, "solve": True}
    search(plain, root, **options)
    result = search(joined, root, transpositions=True, **options)
    assert joined.judged <= 21  # points with x + y <= 5
    assert joined.judged < 0.5 * plain.judged
    assert result.value[0] == pytest.approx(joined.optimum(), abs=1e-4)


def test_transpositions_outlive_moves_and_saving_and_keys_may_be_rows(tmp_path: Path) -> None:
    class Rows(Lattice):
        def key(self, states: np.ndarray) -> np.ndarray:
            return states

    world, root = Rows(), np.zeros((1, 2), np.int64)
    session = Session(world, root, method="uct", num_simulations=300, options=Options(transpositions=True))
    first = session.run()
    assert world.judged <= 21
    after = world.step(root, first.action)
    session.advance(first.action, after.states)
    session.save(tmp_path / "search.safetensors")
    again = Session.load(tmp_path / "search.safetensors", world)
    judged = world.judged
    same(again.run(), session.run())
    assert world.judged == judged  # every point below the move was known


def test_transpositions_need_a_key(worlds: Any) -> None:
    world, roots = start(worlds)
    with pytest.raises(ConfigError, match="need a simulator with `key"):
        search(world, roots, method="puct", num_simulations=4, transpositions=True)


def test_widening_looks_at_the_likeliest_children_first(worlds: Any) -> None:
    world = worlds.random_world(2, masks=False, actions=12)
    roots = np.flatnonzero(~world.terminal)[:4]
    result = search(world, roots, method="uct", num_simulations=15, widen_factor=1.0, widen_power=0.5)
    # N = 15 visits of the root before the last simulation (its own included): ceil(sqrt(15)) = 4 children at most
    assert ((result.visits > 0).sum(1) <= 4).all()
    for b, state in enumerate(roots):
        likeliest = set(np.argsort(-world.logits[state], kind="stable")[:4].tolist())
        assert set(np.flatnonzero(result.visits[b]).tolist()) <= likeliest


def test_a_solved_root_stops_the_search(worlds: Any) -> None:
    tree = worlds.random_tree(1, roots=2, depth=2, branching=3)
    world = worlds.TreeWorld(tree)
    result = search(world, np.arange(2), method="puct", num_simulations=10_000, solve=True)
    assert result.visits.sum() < 100
    np.testing.assert_allclose(result.value, worlds.optimum(tree, 1.0)[:2], atol=1e-5)
    assert (result.policy.max(1) == 1.0).all()


def test_dirichlet_noise_changes_priors_reproducibly(worlds: Any) -> None:
    world, roots = start(worlds)
    noisy = [
        Session(world, roots, method="puct", num_simulations=8, seed=s, options=Options(root_noise=0.25))
        for s in (1, 1, 2)
    ]
    priors = [session.planner.trees.prior[:, 0, :2] for session in noisy]
    np.testing.assert_array_equal(priors[0], priors[1])
    assert (priors[0] != priors[2]).any()
    session = Session(world, roots, method="puct", num_simulations=8)
    width = session.planner.trees.width[:, 0]
    for b in range(len(roots)):
        row = noisy[0].planner.trees.prior[b, 0, : width[b]]
        assert row.sum() == pytest.approx(1.0, abs=1e-5)
        assert (row >= 0.75 * session.planner.trees.prior[b, 0, : width[b]] - 1e-6).all()
