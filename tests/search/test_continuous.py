"""Roots at their own pace: any order, failures, deadlines, budgets, a queue; and what a session finds all the same."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Options, search
from treegym.search.continuous import Continuous, Request, drive


def start(worlds: Any, count: int = 6, **settings: Any) -> tuple[Any, np.ndarray, Continuous]:
    world = worlds.random_world(2)
    roots = np.flatnonzero(~world.terminal)[:count]
    search_ = Continuous(world, **{"method": "puct", "num_simulations": 20, "places": 3} | settings)
    search_.add(roots)
    return world, roots, search_


def finish(world: Any, running: Continuous, rng: np.random.Generator, **told: Any) -> None:
    """Answers in random order, a few at a time."""
    out: list[Request] = []
    while not running.done:
        out += running.ask(int(rng.integers(1, 5)))
        rng.shuffle(out)
        for request in out[: int(rng.integers(1, 4))]:
            running.tell(request.ticket, world.expand(request.states), **told)
        out = [request for request in out if request.ticket in running.waiting]


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("method", ["puct", "gumbel", "uct", "rents"])
def test_any_order_gives_what_a_session_finds(worlds: Any, method: str, leaves: int) -> None:
    world, roots, running = start(worlds, method=method, options=Options(leaves=leaves))
    expected = search(world, roots, method=method, num_simulations=20, leaves=leaves)
    finish(world, running, np.random.default_rng(leaves))
    for name, result in running.results.items():
        assert result is not None
        np.testing.assert_array_equal(result.visits[0], expected.visits[name])
        np.testing.assert_array_equal(result.value[0], expected.value[name])
        assert result.action[0] == expected.action[name]


def test_asking_never_waits_for_the_slowest_root(worlds: Any) -> None:
    world, _, running = start(worlds, count=4, places=4)
    slow = running.ask(1)[0]  # root 0 is never told
    for _ in range(400):
        for request in running.ask():
            assert request.root != slow.root
            running.tell(request.ticket, world.expand(request.states))
        if len(running.results) == 3:
            break
    assert sorted(running.results) == [1, 2, 3]
    assert running.waiting == {slow.ticket}
    assert running.ask() == []  # and what is under way is not asked for twice


def test_a_root_that_is_done_gives_its_place_to_the_next(worlds: Any) -> None:
    world, _, running = start(worlds, count=5, places=2)
    seen: list[int] = []
    while not running.done:
        requests = running.ask()
        assert len({request.root for request in requests}) <= 2
        for request in requests:
            seen.append(request.root)
            running.tell(request.ticket, world.expand(request.states))
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]
    assert seen.index(4) > seen.index(1)


def test_failed_evaluations_are_asked_for_again_and_change_nothing(worlds: Any) -> None:
    world, roots, running = start(worlds)
    expected = search(world, roots, method="puct", num_simulations=20)
    rng = np.random.default_rng(0)
    while not running.done:
        for request in running.ask(3):
            if request.attempt < 3 and rng.random() < 0.5:
                running.fail(request.ticket)
            else:
                assert running.tell(request.ticket, world.expand(request.states))
                assert not running.tell(request.ticket, world.expand(request.states))
    assert not running.failures
    for name, result in running.results.items():
        assert result is not None
        np.testing.assert_array_equal(result.visits[0], expected.visits[name])


def test_a_root_whose_evaluations_keep_failing_ends_with_what_it_has(worlds: Any) -> None:
    world, roots, running = start(worlds, count=3, attempts=2)
    done = 0
    while not running.done:
        for request in running.ask(1):
            if request.root == 1 and done > 4:
                running.fail(request.ticket, "the server is down")
            else:
                done += request.root == 1
                running.tell(request.ticket, world.expand(request.states))
    assert running.failures == {1: "the server is down (2 attempts)"}
    result = running.results[1]
    assert result is not None
    assert 0 < result.visits.sum() < 20
    assert world.legal[roots[1], result.action[0]]
    for name in (0, 2):
        other = running.results[name]
        assert other is not None
        assert other.visits.sum() == 20


def test_what_comes_after_its_deadline_is_ignored(worlds: Any) -> None:
    world, _, running = start(worlds, count=1, deadline=0.01)
    first = running.ask()[0]
    time.sleep(0.03)
    again = running.ask()[0]
    assert (again.root, again.attempt) == (first.root, 2)
    assert not running.tell(first.ticket, world.expand(first.states))
    assert running.tell(again.ticket, world.expand(again.states))


@pytest.mark.parametrize("leaves", [1, 4])
def test_a_root_is_cancelled_wherever_it_stands(worlds: Any, leaves: int) -> None:
    world, _, running = start(worlds, count=4, places=2, options=Options(leaves=leaves))
    running.cancel(3)  # still in the queue
    assert running.results[3] is None
    for _ in range(5):
        for request in running.ask():
            running.tell(request.ticket, world.expand(request.states))
    late = running.ask()
    running.cancel(0)
    result = running.results[0]
    assert result is not None
    assert result.visits.sum() > 0
    assert not any(running.tell(r.ticket, world.expand(r.states)) for r in late if r.root == 0)
    for request in late:
        running.tell(request.ticket, world.expand(request.states))
    finish(world, running, np.random.default_rng(0))
    assert sorted(running.results) == [0, 1, 2, 3]


def test_every_root_has_its_own_budgets(worlds: Any) -> None:
    world, roots, running = start(worlds, count=1)
    running.add(roots[:1], simulations=5)
    running.add(roots[:1], cost=30.0)
    running.add(roots[:1], seconds=0.0)
    finish(world, running, np.random.default_rng(0), cost=10.0)
    visits = [int(result.visits.sum()) for _, result in sorted(running.results.items()) if result is not None]
    assert visits[:2] == [20, 5]
    assert visits[2] >= 2  # its root and two states cost 30; ends cost nothing
    assert visits[2] < 20
    assert visits[3] == 0


def test_a_root_whose_move_is_settled_ends_early(worlds: Any) -> None:
    world = worlds.TableWorld(
        np.array([[3.0, 0.0]] * 3, np.float32), np.array([0.5, 0.9, 0.1], np.float32),
        np.zeros((3, 2), np.float32), np.array([[1, 2]] * 3), np.zeros(3, bool),
    )  # fmt: skip
    running = Continuous(world, method="puct", num_simulations=500, settled=10)
    running.add(np.array([0]))
    finish(world, running, np.random.default_rng(0))
    result = running.results[0]
    assert result is not None
    assert result.action[0] == 0
    assert result.visits.sum() < 40


def test_an_evaluator_that_is_awaited_answers_in_its_own_order(worlds: Any) -> None:
    world, roots, running = start(worlds)
    expected = search(world, roots, method="puct", num_simulations=20)
    rng = np.random.default_rng(1)
    most = under_way = 0

    async def evaluate(states: Any) -> tuple[Evaluation, float]:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(float(rng.random()) * 0.002)
        under_way -= 1
        if rng.random() < 0.1:
            raise ConnectionError("reset")
        return world.expand(states), 1.0

    running.attempts = 20
    found = asyncio.run(drive(running, evaluate, concurrency=4))
    assert sorted(found) == list(range(6))
    assert 2 <= most <= 4
    for name, result in found.items():
        assert result is not None
        np.testing.assert_array_equal(result.visits[0], expected.visits[name])


def test_states_that_are_there_together_are_evaluated_together(worlds: Any) -> None:
    world, roots, running = start(worlds, places=6)
    expected = search(world, roots, method="puct", num_simulations=20)
    sizes: list[int] = []

    async def evaluate(states: Any) -> tuple[Evaluation, float]:
        sizes.append(len(states))
        await asyncio.sleep(0)
        if len(sizes) % 7 == 3:
            raise ConnectionError("reset")  # all that were in the call are asked for again
        return world.expand(states), 1.0

    found = asyncio.run(drive(running, evaluate, concurrency=1, together=4))
    assert max(sizes) == 4
    assert np.mean(sizes) > 2
    for name, result in found.items():
        assert result is not None
        np.testing.assert_array_equal(result.visits[0], expected.visits[name])

    async def one_too_few(states: Any) -> Evaluation:
        given = world.expand(states)
        return Evaluation(given.prior_logits[1:], given.value[1:], given.legal[1:])

    _, _, running = start(worlds)
    with pytest.raises(ConfigError, match="the evaluator judged 2 states and was asked for 3"):
        asyncio.run(drive(running, one_too_few, together=4))


def test_an_evaluation_that_hangs_is_left_behind(worlds: Any) -> None:
    world, _, running = start(worlds, count=2, deadline=0.05)
    hung = 0

    async def evaluate(states: Any) -> Evaluation:
        nonlocal hung
        if hung < 2:
            hung += 1
            await asyncio.sleep(60)
        return world.expand(states)

    begun = time.monotonic()
    found = asyncio.run(drive(running, evaluate))
    assert time.monotonic() - begun < 30
    assert all(result is not None and result.visits.sum() == 20 for result in found.values())


def test_what_an_evaluator_gets_wrong_names_the_root(worlds: Any) -> None:
    world, _, running = start(worlds)
    request = running.ask(1)[0]
    wrong = Evaluation(np.zeros((1, 2)), np.zeros(1), np.ones((1, 2), bool))
    with pytest.raises(ConfigError, match=r"ticket 1, of root 0: the simulator's prior_logits has shape \(1, 2\)"):
        running.tell(request.ticket, wrong)
    assert running.tell(request.ticket, world.expand(request.states))
    for given, message in (
        ({"places": 0}, "places is 0"), ({"attempts": 0}, "attempts is 0"), ({"deadline": -1.0}, "deadline is -1.0"),
        ({"settled": 0}, "settled is 0"), ({"options": Options(transpositions=True)}, "transpositions join states"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            start(worlds, **given)
    with pytest.raises(ConfigError, match="simulations is 21"):
        running.add(np.array([0]), simulations=21)
