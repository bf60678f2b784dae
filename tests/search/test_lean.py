"""Rounds over arrays give what the rounds with all checks give: the same bits, the same errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Options, Session, Transition, search
from treegym.search.lean import LeanRounds
from treegym.search.settings import TREE_RULES


def in_full(session: Session) -> Any:
    while session.step():
        pass
    return session.result()


def assert_same(one: Any, other: Any) -> None:
    for name in ("action", "policy", "visits", "q", "value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.simulations == other.simulations


@pytest.mark.parametrize("method", TREE_RULES)
def test_lean_rounds_give_the_same_bits(method: str, worlds: Any) -> None:
    for seed in range(4):
        world = worlds.random_world(seed)
        roots = np.flatnonzero(~world.terminal)[: 1 + 5 * (seed % 2)]
        for options in (Options(), Options(solve=True, discount=0.9), Options(max_depth=3, widen_factor=1.0)):
            given = {"method": method, "num_simulations": 60, "seed": seed, "options": options}
            full = Session(world, roots, **given)
            expected, called = in_full(full), world.calls
            lean = Session(world, roots, **given)
            assert LeanRounds.suit(lean.planner, lean._store)
            assert_same(lean.run(), expected)
            assert lean.calls == full.calls
            assert world.calls - called == full.calls
            numbers = np.arange(lean.planner.capacity)
            np.testing.assert_array_equal(lean._store.get(numbers), full._store.get(numbers))
            halted = Session(world, roots, **given)
            halted.run(simulations=17)
            assert_same(halted.run(), expected)


def test_ways_may_get_long_at_any_time() -> None:
    """Steps to the right pay, so that searches go deep, now and then by far more than a round before."""

    class Right(Line):
        def step(self, states: Any, actions: Any) -> Any:
            moved = super().step(states, actions)
            return moved._replace(reward=(actions == 1).astype(np.float32) * (1 + moved.states % 7))

    roots = np.array([0, 3, 5], np.float32)
    for method in ("puct", "uct", "gumbel"):
        for size in (1, 3):
            given = {"method": method, "num_simulations": 400, "options": Options(discount=0.95)}
            full = Session(Right(), roots[:size], **given)
            lean = Session(Right(), roots[:size], **given)
            assert_same(lean.run(), in_full(full))
            assert lean.planner._deepest == full.planner._deepest > 20


def test_what_has_other_dtypes_is_taken_all_the_same(worlds: Any) -> None:
    class Loose(worlds.TableWorld):
        def expand(self, states: Any) -> Any:
            given = super().expand(states)
            return Evaluation(given.prior_logits.astype(float), given.value.tolist(), given.legal.astype(int))

        def step(self, states: Any, actions: Any) -> Any:
            moved = super().step(states, actions)
            return Transition(moved.states.astype(np.int32), moved.reward.astype(float), moved.terminated.tolist())

    world = worlds.random_world(3)
    tables = (world.logits, world.value, world.reward, world.next_state, world.terminal, world.legal)
    roots = np.flatnonzero(~world.terminal)[:4]
    expected = search(world, roots, method="gumbel", num_simulations=50)
    assert_same(search(Loose(*tables), roots, method="gumbel", num_simulations=50), expected)


class Line:
    """One step to the right or left; ``late`` changes what comes of the fourth call."""

    num_actions = 2

    def __init__(self, **late: Any) -> None:
        self.late, self.calls = late, 0

    def expand(self, states: Any) -> Any:
        self.calls += 1
        given = Evaluation(np.zeros((len(states), 2), np.float32), np.zeros(len(states), np.float32),
                           np.ones((len(states), 2), np.bool_))  # fmt: skip
        return self.changed(given)

    def step(self, states: Any, actions: Any) -> Any:
        after = states + np.where(actions == 1, np.float32(1), np.float32(-1))
        return self.changed(Transition(after, np.zeros(len(after), np.float32), np.zeros(len(after), np.bool_)))

    def changed(self, given: Any) -> Any:
        if self.calls != 4:
            return given
        return given._replace(
            **{name: to(getattr(given, name)) for name, to in self.late.items() if hasattr(given, name)}
        )


def second(value: Any) -> Any:
    """Changes the second row."""

    def change(given: np.ndarray) -> np.ndarray:
        changed = given.copy()
        changed[1] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("late", "message"),
    [
        ({"reward": second(np.nan)}, r"the reward of leaf 1 \(root 1\) is nan; it must be finite"),
        ({"reward": second(2e30)}, r"the reward of leaf 1 \(root 1\) is"),
        ({"value": second(np.inf)}, "below the roots: the simulator's value of row 1 is inf"),
        ({"prior_logits": second(np.nan)}, r"a state below root 1 has a prior logit that is NaN or \+inf"),
        ({"legal": second(False)}, "a state below root 1 has no legal action"),
        ({"states": lambda states: states[:, None]}, "the simulator's states have shape"),
        ({"states": lambda states: states[:1]}, "the simulator's step gave 1 states for 2 actions"),
        ({"states": lambda states: states.astype("U8")}, "the simulator's states became <U8"),
        ({"value": lambda value: value[:, None]}, r"the simulator's value has shape \(2, 1\)"),
        ({"terminated": lambda ended: ended[:1]}, r"terminated has shape \(1,\)"),
        ({"reward": lambda reward: reward[:, None]}, r"reward has shape \(2, 1\)"),
    ],
)
def test_what_goes_wrong_late_is_told_as_ever(late: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Line(**late), np.zeros(2, np.float32), method="puct", num_simulations=10)


def test_a_round_that_fails_was_never_begun(worlds: Any) -> None:
    class Failing(Line):
        def expand(self, states: Any) -> Any:
            given = super().expand(states)
            if self.calls == 7:
                raise RuntimeError("the evaluator is not there")
            return given

    for method in ("puct", "gumbel", "ments"):
        whole = search(Line(), np.zeros(3, np.float32), method=method, num_simulations=30)
        session = Session(Failing(), np.zeros(3, np.float32), method=method, num_simulations=30)
        with pytest.raises(RuntimeError, match="not there"):
            session.run()
        assert_same(session.run(), whole)
