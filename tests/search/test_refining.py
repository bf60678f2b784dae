"""LATS and MCTS self-refine: what they count, by hand, and what reflection is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Transition, search


class Listed:
    """States are texts of 0s and 1s, judged by a table (0 unless named); as many steps as `length` end them."""

    num_actions = 2

    def __init__(self, worth: dict[str, float], *, length: int, prior: tuple[float, float] = (0.0, 0.0)) -> None:
        self.worth, self.length, self.prior = worth, length, prior
        self.judged: list[str] = []

    def expand(self, states: list[str]) -> Evaluation:
        self.judged += states
        size = len(states)
        value = np.array([self.worth.get(state, 0.0) for state in states])
        return Evaluation(np.tile(self.prior, (size, 1)), value, np.ones((size, 2), bool))

    def step(self, states: list[str], actions: np.ndarray) -> Transition:
        after = [state + str(action) for state, action in zip(states, actions.tolist(), strict=True)]
        ended = np.array([len(state) == self.length for state in after])
        paid = np.array([self.worth.get(state, 0.0) if over else 0.0 for state, over in zip(after, ended, strict=True)])
        return Transition(after, paid, ended)


def test_self_refine_by_hand() -> None:
    # The likelier refinement (0) is drawn first. Judgements: "" .5, "0" .7, "00" .1, "1" .2.
    # 1. "" is refined: "0". Q("") = (.5 + .7) / 2 = .6, N 2. UCT("") = .6 + sqrt((ln 2 + 1) / 2) = 1.520,
    #    UCT("0") = .7 + sqrt(ln 2 + 1) = 2.001.
    # 2. "0" is refined: "00". Q("0") = (.7 + .1) / 2 = .4, N 2; Q("") = (.6 + .4) / 2 = .5, N 3.
    #    UCT("") = .5 + sqrt((ln 3 + 1) / 3) = 1.336, UCT("0") = .4 + sqrt((ln 3 + 1) / 2) = 1.424,
    #    UCT("00") = .1 + sqrt(ln 2 + 1) = 1.401.
    # 3. so "0" is refined again: "01"; with that and "00" it has two children, neither better than it.
    world = Listed({"": 0.5, "0": 0.7, "00": 0.1, "1": 0.2}, length=9, prior=(50.0, 0.0))
    result = search(world, [""], method="self_refine", num_simulations=3, c_explore=1.0)
    assert world.judged == ["", "0", "00", "01"]
    assert result.action[0] == 0
    np.testing.assert_allclose(result.value, [0.7])  # the best answer found, as it was judged
    assert result.simulations == 3


def test_fully_refined_answers_are_left_alone() -> None:
    # both refinements of "" are judged; one is better, so it is done, and the better one is refined, never the root
    world = Listed({"0": 1.0, "1": -9.0}, length=9)
    search(world, [""], method="self_refine", num_simulations=6, c_explore=0.0, refinements=1)
    assert all(state.startswith("0") for state in world.judged[2:])


def test_several_judgements_count_the_least_as_much_as_the_mean() -> None:
    class Moody(Listed):
        """Judges "0" as 1.0 at first, then as 0.0."""

        def expand(self, states: list[str]) -> Evaluation:
            first = "0" not in self.judged
            given = super().expand(states)
            return given if first else given._replace(value=np.zeros(len(states)))

    result = search(
        Moody({"0": 1.0}, length=9, prior=(50.0, 0.0)), [""], method="self_refine", num_simulations=2, judgements=2
    )
    np.testing.assert_allclose(result.q[0, 0], 0.25)  # (min(1, 0) + mean(1, 0)) / 2
    assert result.simulations == 2


def test_lats_by_hand() -> None:
    # Ends pay "00" .1, "01" .3, "10" .9, "11" .2; "0" looks like .8, "1" like .6.
    # 1. both moves are judged, and the better-looking is walked to its end: "01" with .3.
    #    V("0") = (.8 + .3) / 2 = .55, N 2; V("") = (0 + .3) / 2, N 2. "0" is done.
    # 2. down again, "1" is what is left; its ends are judged, and "10" is found.
    world = Listed({"0": 0.8, "1": 0.6, "00": 0.1, "01": 0.3, "10": 0.9, "11": 0.2}, length=2)
    short = search(world, [""], method="lats", num_simulations=4, answers=9)
    assert short.action[0] == 0
    assert short.answers is not None
    assert [answer.value for answer in short.answers.finished[0]] == [0.3, 0.1]
    whole = search(world, [""], method="lats", num_simulations=6)
    assert (whole.action[0], whole.value[0], whole.simulations) == (1, pytest.approx(0.9), 6)


class Told(Listed):
    """Likes to go left (0) and sees no difference, until a note says that right is better."""

    def expand_with(self, states: list[str], notes: list[tuple[str, ...]]) -> Evaluation:
        assert len(notes) == len(states)
        warned = np.array([any("go right" in note for note in noted) for noted in notes])
        rightness = np.array([state.count("1") / self.length for state in states])
        given = self.expand(states)
        return given._replace(value=np.where(warned, rightness, given.value))


def test_reflection_finds_what_search_alone_does_not() -> None:
    # Three paths fit into 40 evaluations. The first goes left at every step and ends with 0.2; the second begins on the
    # right, where all looks alike without a note, and one step further right looks better with one.
    seen: list[tuple[str, float]] = []

    def reflect(states: list[str], returns: np.ndarray) -> list[str]:
        seen.extend(zip(states, returns.tolist(), strict=True))
        return ["go right" for _ in states]

    world = {"1" * 6: 1.0, "0" * 6: 0.2}
    alone, reflecting = (
        search(
            Told(world, length=6, prior=(50.0, 0.0)), [""], method="lats", num_simulations=40, branching=2, reflect=how
        )
        for how in (None, reflect)
    )
    assert alone.value[0] == pytest.approx(0.2)
    assert reflecting.value[0] == pytest.approx(1.0)
    assert seen[0] == ("0" * 6, pytest.approx(0.2))
    assert "1" * 6 not in dict(seen)  # with that end it is satisfied


def test_notes_go_with_their_own_root_alone() -> None:
    class Watched(Told):
        def expand_with(self, states: list[str], notes: list[tuple[str, ...]]) -> Evaluation:
            for state, noted in zip(states, notes, strict=True):
                assert noted == (("a0 is bad",) if state.startswith("a") else ())
            return super().expand_with(states, notes)

        def step(self, states: list[str], actions: np.ndarray) -> Transition:
            moved = super().step(states, actions)
            bad = np.array([state[:2] == "a0" for state in moved.states])  # a bad end; others go on
            return Transition(moved.states, np.where(bad, -1.0, 0.0), bad)

    result = search(
        Watched({}, length=99), ["a", "b"], method="lats", num_simulations=12, branching=2, satisfied=0.0,
        reflect=lambda states, returns: [f"{state} is bad" for state in states],
    )  # fmt: skip
    assert result.simulations == 12


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("lats", {"branching": 0}, "branching is 0"),
        ("lats", {"reflect": lambda *_: []}, "reflect needs a simulator with `expand_with"),
        ("lats", {"horizon": 0}, "horizon is 0"),
        ("self_refine", {"judgements": 0}, "judgements is 0"),
        (
            "self_refine",
            {"refinments": 3},
            "'refinments' is not a setting of 'self_refine'. Did you mean 'refinements'",
        ),
        ("self_refine", {"secnds": 3}, "'secnds' is not a setting of 'self_refine'. Did you mean 'seconds'"),
        ("ab_mcts_m", {"secnds": 3}, "'secnds' is not a setting of 'ab_mcts_m'. Did you mean 'seconds'"),
    ],
)
def test_settings_are_checked(method: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Listed({}, length=3), [""], method=method, num_simulations=4, **given)


def test_as_many_reflections_as_bad_ends() -> None:
    world = Told({"0": 0.1, "1": 0.1}, length=1)
    with pytest.raises(ConfigError, match="reflect gave 0 texts for 1 ended states"):
        search(world, [""], method="lats", num_simulations=4, reflect=lambda states, returns: [])
