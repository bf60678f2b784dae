"""What failed is never a score of 0: neither in a composition, nor in an environment, nor after it was asked again."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from treegym.envs.token_tree.env import TokenTreeEnv
from treegym.envs.token_tree.vector import TokenTreeVectorEnv
from treegym.errors import RewardError
from treegym.rewards import FunctionTerm, Scored, Sum, Term, build

ENDS = [4, 6, 8]  # "4" right after 2 tokens, "5" wrong after 2, "4." right after 3 (drawn in conftest.py)
TREE = "synthetic:roots=12,depth=5,seed=0"


def down(*nodes, scope="episode", **policy):
    """A term that is worth a half, and fails at some nodes."""

    def half(path):
        if path.node in nodes:
            raise RuntimeError("down")
        return 0.5

    return FunctionTerm(function=half, name="half", scope=scope, **(policy or {"on_error": "mask"}))


@pytest.mark.parametrize(
    ("spec", "paid", "unknown"),
    [
        # the judge's stored scores are 0.9, 0.2, 0.6; the term is down at node 6
        (lambda f: [f, "judge"], [1.4, 0.2, 1.1], True),  # a sum leaves it out
        (lambda f: {"product": {"of": [f, "length"]}}, [1.0, 0.0, 1.5], True),
        (lambda f: {"gate": {"by": f, "then": "judge", "otherwise": -5.0}}, [0.9, 0.0, 0.6], True),
        (lambda f: {"gate": {"by": "length", "then": f}}, [0.5, 0.0, 0.5], True),
        (
            lambda f: {"lexicographic": {"of": [f, "judge"]}},
            [0.6 + 0.045, 0.0, 0.6 + 0.03],
            True,
        ),  # 1/2 has no range: 2/3, down to 0.6
        (lambda f: {"sparse": {"of": [f, "length"]}}, [2.5, 2.0, 3.5], True),
        (lambda f: [{"product": {"of": [f, "judge"]}}, "length"], [1.45, 1.0, 1.3], True),
        (lambda f: {"gate": {"by": "verifier", "then": f, "otherwise": -1.0}}, [0.5, -1.0, 0.5], False),  # not asked
    ],
)
def test_a_masked_failure_is_unknown_and_no_zero(small, spec, paid, unknown):
    table = build(spec(down(6))).on(small)
    table.ensure(np.array(ENDS))
    assert table.total[ENDS] == pytest.approx(paid)
    assert table.failed[ENDS].tolist() == [False, unknown, False]
    assert table.failures["half"] == int(unknown)


def test_a_default_takes_part_as_a_value(small):
    table = build({"product": {"of": [down(6, on_error="default", default=2.0), "judge"]}}).on(small)
    table.ensure(np.array(ENDS))
    assert table.total[ENDS] == pytest.approx([0.45, 0.4, 0.3])
    assert table.failed[ENDS].tolist() == [False, True, False]


def test_a_failed_step_makes_products_below_it_unknown(small):
    failing = down(2, scope="step")  # nodes 4 and 8 lie below
    table = build({"product": {"of": [failing, "judge"]}}).on(small)
    table.ensure(np.arange(small.size))
    assert table.total[ENDS] == pytest.approx([0.0, 1.0 * 0.2, 0.0])
    assert table.failed[ENDS].tolist() == [True, False, True]
    sparse = build({"sparse": {"of": down(2, scope="step")}}).on(small)
    sparse.ensure(np.array(ENDS))
    assert sparse.total[ENDS] == pytest.approx([0.5, 1.0, 1.0])  # what the dense sum pays on the way, too


def test_asking_again_repairs_everything_that_counted_on_a_failure(small):
    state = {"down": True}

    def judge(path):
        if state["down"]:
            raise ConnectionError("nobody there")
        return 1.0

    asked = []
    by = FunctionTerm(function=judge, name="judge", on_error="mask")
    then = FunctionTerm(function=lambda path: asked.append(path.node) or 0.7, name="then")
    table = build({"gate": {"by": by, "then": then}}).on(small)
    table.ensure(np.array(ENDS))
    assert (asked, table.failures["judge"], table.total[ENDS].tolist()) == ([], 3, [0.0, 0.0, 0.0])
    state["down"] = False
    assert table.retry() == 3
    table.ensure(np.array(ENDS))
    assert table.total[ENDS] == pytest.approx([0.7, 0.7, 0.7])
    assert not table.failed.any()
    assert asked == ENDS


class Batch(Term):
    """Scores whole batches, and raises when a bad node is among them."""

    kind = "batch"
    lazy = True

    def __init__(self, *, bad=(), **common):
        super().__init__(**common)
        self.bad, self.batches = set(bad), []

    def values(self, source, asked):
        self.batches.append(asked.nodes.tolist())
        if self.bad & set(asked.nodes.tolist()):
            raise ZeroDivisionError("by 0")
        return np.ones(len(asked.nodes))


def test_an_exception_inside_a_batch_costs_only_the_path_that_caused_it(small):
    table = build(Batch(bad=[6], on_error="mask")).on(small)
    table.ensure(np.array(ENDS))
    assert table.total[ENDS].tolist() == [1.0, 0.0, 1.0]
    assert table.failed[ENDS].tolist() == [False, True, False]
    strict = Batch(bad=[6])
    table = build(strict).on(small)
    with pytest.raises(
        RewardError, match=r"'batch' failed at root 0 .* node 6, path \[2, 5\] .*ZeroDivisionError: by 0"
    ):
        table.ensure(np.array(ENDS))
    strict.bad.clear()
    strict.batches.clear()
    table.ensure(np.array(ENDS))
    assert strict.batches == [[6, 8]]  # what was known before the failure is kept


@pytest.mark.parametrize("returned", [np.ones((2, 1)), "text", [None], Scored(np.ones(7), {}), {1: 2}])
def test_values_that_are_no_numbers_name_term_and_path(small, returned):
    class Odd(Term):
        kind = "odd"

        def values(self, source, asked):
            return returned

    with pytest.raises(RewardError, match=r"'odd' failed at root 0 .* node 4, path \[1, 5\]"):
        build(Odd()).on(small)


def unlucky(path):
    if path.root % 2:
        raise ValueError("odd roots are out")
    return 0.5


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("policy", ["mask", "default", "raise"])
def test_a_failing_term_in_every_autoreset_mode(mode, policy):
    default = {"default": 0.25} if policy == "default" else {}
    term = FunctionTerm(function=unlucky, name="mine", on_error=policy, **default)
    env = TokenTreeVectorEnv(4, tree=TREE, split="all", autoreset_mode=mode, reward=Sum((term, 1.0)))
    observation, _ = env.reset(seed=0, options={"roots": [0, 1, 2, 3]})
    failed = 0
    for _ in range(30):
        before, root = env.clone_state(), env.world.tables.root_index[env.nodes]
        try:
            observation, reward, ended, cut, info = env.step(
                [np.flatnonzero(m)[-1] for m in observation["action_mask"]]
            )
        except RewardError as error:
            assert policy == "raise"
            message = str(error)
            assert "'mine' failed at root" in message
            assert all(np.array_equal(before[name], value) for name, value in env.clone_state().items())
            return  # no lane moved: nothing of the episodes is lost
        lanes = info["reward_failed"]
        assert (root[lanes] % 2 == 1).all()
        assert ended[lanes].all()
        assert reward[lanes] == pytest.approx(0.25 if default else 0.0)
        np.testing.assert_array_equal(info["reward_terms"]["mine"]["raw"][lanes], 0.25 if default else np.nan)
        assert np.isfinite(info["vector_reward"]).all()
        failed += lanes.sum()
        if mode == "Disabled" and (ended | cut).any():
            observation, _ = env.reset(options={"reset_mask": ended | cut})
    assert policy != "raise"
    assert env.world.table.failures["mine"] > 0
    assert failed > 0


def test_the_single_environment_shows_a_failure_as_no_number():
    env = TokenTreeEnv(
        TREE, split="all", reward=Sum((FunctionTerm(function=unlucky, name="mine", on_error="mask"), 1.0))
    )
    env.reset(seed=0, options={"root": 1})
    ended = False
    while not ended:
        _, reward, ended, cut, info = env.step(0)
        ended = ended or cut
    assert (reward, info["reward_failed"]) == (0.0, True)
    assert np.isnan(info["reward_terms"]["mine"]["raw"])
    assert np.isfinite(info["vector_reward"]).all()


def test_annealing_reaches_environments_and_the_raw_reward_stays():
    settings = {"tree": TREE, "reward": {"verifier": 1.0, "lmgt": {"guide": "teacher:teacher0", "weight": 0.5}}}
    env, envs = TokenTreeEnv(**settings), TokenTreeVectorEnv(2, **settings)
    for progress, paid in ((0.0, 0.5), (0.5, 0.25), (1.0, 0.0)):
        env.set_progress(progress)
        envs.set_progress(progress)
        env.reset(options={"root": 3})
        envs.reset(options={"root": 3})
        *_, info = step = env.step(0)
        assert (step[1], info["raw_reward"], info["reward_terms"]["lmgt"]["raw"]) == (paid, 0.0, 1.0)
        _, reward, _, _, infos = envs.step([0, 0])
        assert (reward.tolist(), infos["raw_reward"].tolist()) == ([paid, paid], [0.0, 0.0])


@pytest.mark.parametrize("spec", [
    {"sparse": {"of": ["verifier", {"lmgt": {"guide": "primary"}}]}},
    {"gate": {"by": "verifier", "then": ["verifier2", {"lmgt": {"guide": "primary"}}]}},
    {"product": {"of": ["verifier", {"verifier2": {"term": "verifier", "anneal": [0, 1]}}]}},
])  # fmt: skip
def test_the_raw_reward_leaves_shaping_out_wherever_it_stands(small, spec):
    if "gate" in spec:
        spec["gate"]["then"][0] = {"verifier2": {"term": "verifier"}}
    table = build(spec).on(small)
    assert table.raw(np.array(ENDS)).tolist() == [1.0, 0.0, 1.0]


def test_environments_can_be_copied_and_pickled_in_the_middle_of_an_episode():
    env = TokenTreeEnv(TREE)
    env.reset(seed=0)
    env.step(0)
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]  # noqa: S301 - our own
    expected = [env.step(action)[1:] for action in (0, 1)]
    for other in copies:
        found = [other.step(action)[1:] for action in (0, 1)]
        assert str(found) == str(expected)
