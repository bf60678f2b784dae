"""Worlds in which chance decides: outcomes with probabilities, against expectimax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Options, Outcomes, Session, search

RULES = ["puct", "gumbel", "uct", "ments", "rents"]
Table = dict[tuple[int, int], list[tuple[float, int, float, bool]]]  # (state, action) -> probability, next, reward, end


class Tables:
    """States are numbers, and what a move can come to stands in a table."""

    def __init__(self, table: Table, actions: int, value: np.ndarray | None = None) -> None:
        self.table, self.num_actions = table, actions
        self.num_outcomes = max(map(len, table.values()))
        self.value = value
        self.calls = 0

    def expand(self, states: np.ndarray) -> Evaluation:
        self.calls += 1
        size = len(states)
        legal = np.array([[(int(s), a) in self.table for a in range(self.num_actions)] for s in states])
        value = np.zeros(size) if self.value is None else self.value[states]
        return Evaluation(np.zeros((size, self.num_actions)), value, legal)

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        found = [
            (i, *outcome)
            for i, (state, action) in enumerate(zip(states.tolist(), actions.tolist(), strict=True))
            for outcome in self.table[state, action]
        ]
        row, probability, after, reward, ended = map(np.array, zip(*found, strict=True))
        return Outcomes(after, reward, ended, probability, row)


# State 0: be paid 0.5 at once, or gamble: with 0.4 on to state 1 with 0.2 in hand. There 1 is sure, or 3 against -0.5.
LOTTERY: Table = {
    (0, 0): [(1.0, 9, 0.5, True)],
    (0, 1): [(0.4, 1, 0.2, False), (0.6, 9, 0.0, True)],
    (1, 0): [(1.0, 9, 1.0, True)],
    (1, 1): [(0.5, 9, 3.0, True), (0.5, 9, -0.5, True)],
}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize(
    ("discount", "gamble"),
    [
        (1.0, 0.58),  # state 1 is worth max(1, (3 - 0.5) / 2) = 1.25; 0.4 (0.2 + 1.25)
        (0.8, 0.48),  # 0.4 (0.2 + 0.8 * 1.25)
        (-1.0, -0.42),  # the other one takes 1.25: 0.4 (0.2 - 1.25)
    ],
)
def test_a_lottery_by_hand(method: str, discount: float, gamble: float) -> None:
    result = search(Tables(LOTTERY, 2), np.array([0]), method=method, num_simulations=60, discount=discount, solve=True)
    np.testing.assert_allclose(result.q[0], [0.5, gamble], atol=1e-6)
    assert result.action[0] == int(gamble > 0.5)
    np.testing.assert_allclose(result.value, [max(0.5, gamble)], atol=1e-6)


def random_table(seed: int, *, depth: int = 4, actions: int = 3, outcomes: int = 3) -> tuple[Table, list[int]]:
    """Returns a table without circles, and its states from the last to the first; state 0 is the root."""
    rng = np.random.default_rng(seed)
    table: Table = {}
    level, used, order = [0], 1, [0]
    for layer in range(depth):
        below: list[int] = []
        for state in level:
            for action in range(actions):
                chances = rng.dirichlet(np.ones(int(rng.integers(1, outcomes + 1)))) + 1e-3
                chances /= chances.sum()
                ended = (rng.random(len(chances)) < 0.4) | (layer == depth - 1)
                states = list(range(used, used + len(chances)))
                used += len(chances)
                table[state, action] = [
                    (float(p), s, float(rng.normal()), bool(e)) for p, s, e in zip(chances, states, ended, strict=True)
                ]
                below += [s for s, e in zip(states, ended, strict=True) if not e]
        order, level = order + below, below
    return table, order[::-1]


def expectimax(table: Table, order: list[int], discount: float) -> tuple[dict[int, float], np.ndarray]:
    """Returns the exact value of every state, and of each move of state 0."""
    value: dict[int, float] = {}

    def worth(state: int, action: int) -> float:
        return sum(p * (r + (0.0 if e else discount * value[s])) for p, s, r, e in table[state, action])

    for state in order:
        value[state] = max(worth(s, a) for s, a in table if s == state)
    return value, np.array([worth(s, a) for s, a in table if s == 0])


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("leaves", [1, 4])
def test_solved_worlds_equal_expectimax(method: str, leaves: int) -> None:
    for seed in range(3):
        table, order = random_table(seed, depth=3)
        _, moves = expectimax(table, order, 0.9)
        result = search(
            Tables(table, 3), np.array([0]), method=method, num_simulations=4000, discount=0.9, solve=True,
            leaves=leaves,
        )  # fmt: skip
        np.testing.assert_allclose(result.q[0], moves, atol=1e-5)
        assert result.action[0] == moves.argmax()


def test_without_solving_search_comes_near_expectimax() -> None:
    for seed in range(4):
        table, order = random_table(seed)
        _, moves = expectimax(table, order, 1.0)
        result = search(Tables(table, 3), np.array([0]), method="uct", num_simulations=20_000, max_backup=True)
        assert result.action[0] == moves.argmax()
        np.testing.assert_allclose(result.q[0].max(), moves.max(), atol=0.02)


def test_visits_keep_in_step_with_the_probabilities() -> None:
    table: Table = {(0, 0): [(0.5, 1, 0.0, False), (0.3, 2, 0.0, False), (0.2, 3, 0.0, False)]}
    table |= {(s, 0): [(1.0, s, 0.0, False)] for s in (1, 2, 3)}
    session = Session(Tables(table, 1), np.array([0]), method="puct", num_simulations=100)
    session.run()
    trees = session.planner.trees
    assert trees.visits[0, trees.child[0, 0, 0], :3].tolist() == [50, 30, 20]


def test_only_what_is_likely_counts_until_the_rest_is_seen() -> None:
    # the likelier outcome comes first: one simulation has seen 2.0 alone; the second one knows 0.7 * 2 + 0.3 * -1
    table: Table = {(0, 0): [(0.3, 1, -1.0, True), (0.7, 2, 2.0, True)]}
    for simulations, known in ((1, 2.0), (2, 1.1)):
        result = search(Tables(table, 1), np.array([0]), method="puct", num_simulations=simulations)
        np.testing.assert_allclose(result.q, [[known]], atol=1e-6)


def test_depth_counts_moves() -> None:
    table, _ = random_table(5, depth=4)
    value = np.full(1 + max(s for outcomes in table.values() for _, s, _, _ in outcomes), 7.0)
    session = Session(
        Tables(table, 3, value), np.array([0]), method="uct", num_simulations=500, options=Options(max_depth=1)
    )
    result = session.run()
    exact = [sum(p * (r + (0.0 if e else 7.0)) for p, _, r, e in table[0, a]) for a in range(3)]
    np.testing.assert_allclose(result.q[0], exact, atol=1e-5)


def test_batches_splits_and_files_change_nothing(tmp_path: Any) -> None:
    table, _ = random_table(6)
    world, options = Tables(table, 3), Options(leaves=4, discount=0.9)
    inner = sorted({s for s, _ in table})[:6]
    roots = np.array(inner)
    whole = search(world, roots, method="gumbel", num_simulations=80, leaves=4, discount=0.9)
    for row in range(len(roots)):
        alone = search(
            world, roots[row : row + 1], method="gumbel", num_simulations=80, leaves=4, discount=0.9,
            root_ids=np.array([row]),
        )  # fmt: skip
        np.testing.assert_array_equal(alone.visits[0], whole.visits[row])
    session = Session(world, roots, method="gumbel", num_simulations=80, options=options)
    session.run(simulations=30)
    session.save(tmp_path / "half.safetensors")
    again, first = Session.load(tmp_path / "half.safetensors", world).run(), session.run()
    np.testing.assert_array_equal(again.visits, first.visits)
    np.testing.assert_array_equal(again.value, first.value)


def test_an_evaluator_that_fails_loses_nothing() -> None:
    table, _ = random_table(7)
    whole = search(Tables(table, 3), np.array([0]), method="puct", num_simulations=60)

    class Unsteady(Tables):
        failed = 0

        def expand(self, states: np.ndarray) -> Evaluation:
            if self.calls % 3 == 2:
                self.failed += 1
                raise RuntimeError("away")
            return super().expand(states)

    world = Unsteady(table, 3)
    session = Session(world, np.array([0]), method="puct", num_simulations=60)
    for _ in range(200):
        try:
            result = session.run()
            break
        except RuntimeError:
            world.calls += 1
    assert world.failed > 3
    np.testing.assert_array_equal(result.visits, whole.visits)


def test_what_came_about_is_found_in_the_tree() -> None:
    table, order = random_table(8)
    _, moves = expectimax(table, order, 1.0)
    session = Session(Tables(table, 3), np.array([0]), method="puct", num_simulations=300)
    session.run()
    move = int(moves.argmax())
    after = next(s for _, s, _, e in table[0, move] if not e)
    kept = session.advance(np.array([move]), np.array([after]))
    assert kept.tolist() == [True]
    assert session.carried[0] > 0
    again = session.run()
    fresh = search(Tables(table, 3), np.array([after]), method="puct", num_simulations=3000, solve=True)
    assert again.action[0] == fresh.action[0]
    assert session.advance(again.action, np.array([0])).tolist() == [False]  # not an outcome of it: begins anew


def frozen_lake() -> tuple[Table, np.ndarray, np.ndarray]:
    """Returns the slippery lake's table, what 20 sweeps of value iteration say of each state, and the exact values."""
    import gymnasium as gym

    env: Any = gym.make("FrozenLake-v1", is_slippery=True).unwrapped
    table: Table = {}
    for state, moves in env.P.items():
        over = any(e and s == state and p == 1.0 for p, s, _, e in moves[0])
        for action, outcomes in moves.items():
            merged: dict[tuple[int, float, bool], float] = {}  # a wall on both sides: twice the same state
            for p, after, reward, ended in outcomes:
                key = (int(after), float(reward), bool(ended))
                merged[key] = merged.get(key, 0.0) + p
            if not over:
                table[state, action] = [(p, *key) for key, p in merged.items()]
    value = np.zeros(16)
    known = value
    for sweep in range(2000):
        value = np.array(
            [
                max(
                    (sum(p * (r + 0.99 * value[s] * (not e)) for p, s, r, e in table.get((state, a), [])))
                    for a in range(4)
                )
                for state in range(16)
            ]
        )
        if sweep == 19:
            known = value
    return table, known, value


def test_the_slippery_lake() -> None:
    table, known, value = frozen_lake()
    roots = np.array(sorted({s for s, _ in table}))
    worth = np.array(
        [[sum(p * (r + 0.99 * value[s] * (not e)) for p, s, r, e in table[s0, a]) for a in range(4)] for s0 in roots]
    )
    lost = {}
    for simulations in (4, 2000):
        found = search(Tables(table, 4, known), roots, method="puct", num_simulations=simulations, discount=0.99)
        lost[simulations] = worth.max(1) - worth[np.arange(len(roots)), found.action]
    assert lost[2000].mean() < 0.1 * lost[4].mean()
    assert lost[2000].max() < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": [0.5, 0.6, 1.0]}, r"probability sums to 1.1 for row 0; it must sum to 1"),
        ({"probability": [0.5, 0.5, 0.0]}, r"probability is 0.0 at outcome 2 \(row 1\); it must be above 0"),
        ({"probability": [0.5, float("nan"), 1.0]}, r"probability is nan at outcome 1 \(row 0\)"),
        ({"probability": [1.0, 1.0]}, r"probability has shape \(2,\); expected \(3,\), one per state"),
        ({"states": [1, 1, 2], "reward": [0.0, 0.0, 0.0]}, r"outcomes 0 and 1 \(row 0\) are the same state"),
        ({"row": [0, 0, 2]}, r"row is 2 at outcome 2; "),
        ({"row": [1, 0, 0]}, r"row is not in rising order"),
        ({"row": [0, 0, 0], "probability": [0.5, 0.25, 0.25]}, r"row 0 has 3 outcomes; expected from 1 to 2"),
        ({"row": [1, 1, 1], "probability": [0.5, 0.25, 0.25]}, r"row 0 has 0 outcomes; expected from 1 to 2"),
        ({"reward": [0.0, 1.0]}, r"reward has shape \(2,\)"),
        ({"reward": [0.0, float("inf"), 0.0]}, r"the reward of leaf 0 \(root 0\) is inf"),
    ],
)
def test_outcomes_are_checked(change: dict[str, Any], message: str) -> None:
    given = {
        "states": [1, 2, 2], "reward": [0.0, 1.0, 0.0], "terminated": [True] * 3, "probability": [0.4, 0.6, 1.0],
        "row": [0, 0, 1],
    }  # fmt: skip

    class Wrong(Tables):
        def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
            return Outcomes(**{name: np.array(array) for name, array in (given | change).items()})

    world = Wrong({(0, 0): [(0.5, 1, 0.0, True), (0.5, 2, 0.0, True)]}, 1)
    with pytest.raises(ConfigError, match=message):
        search(world, np.array([0, 0]), method="puct", num_simulations=4)


def test_what_does_not_take_chance_into_account_says_so() -> None:
    world = Tables(LOTTERY, 2)
    with pytest.raises(ConfigError, match="use a tree method"):
        search(world, np.array([0]), method="beam", num_simulations=4)
    with pytest.raises(ConfigError, match="here chance decides"):
        search(world, np.array([0]), method="puct", num_simulations=4, answers=1)
    with pytest.raises(ConfigError, match="chance keeps none"):
        search(world, np.array([0]), method="puct", num_simulations=4, transpositions=True)
