"""What a controller of test-time compute sees: its branches, what they would answer, the price, the kind of task."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest

from treegym.envs.compute import transition
from treegym.envs.compute.env import TestTimeComputeEnv, TestTimeComputeVectorEnv
from treegym.envs.compute.pool import ChainPool
from treegym.envs.compute.transition import CHAIN, block
from treegym.envs.compute.world import ComputeWorld
from treegym.errors import ConfigError

SYNTHETIC = "synthetic:prompts=40,chains=12,segments=4,segment=5,seed=1"


def seen(env: TestTimeComputeEnv, row: np.ndarray) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Returns the features of the state and of every action, by name."""
    state, child = env.layout.split(row[None])
    return (
        dict(zip(env.layout.state, state[0].tolist(), strict=True)),
        [dict(zip(env.layout.child, one, strict=True)) for one in child[0].tolist()],
    )


def after(env: TestTimeComputeEnv, *, first: int) -> np.ndarray:
    """Returns what is seen after all chains of the hand-made pool are finished, chain `first` first."""
    for seed in range(200):
        env.reset(seed=seed)
        env.step(0)
        if block(env.lanes.place[0], CHAIN, 3)[0] == first:
            break
    for _ in range(2):
        env.step(0)
    for i in range(3):
        if env.action_masks()[env.world.action_of("continue", i)]:
            row = env.step(env.world.action_of("continue", i))[0]
    return row["observations"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Answer 1, of chains 1 and 2: two of three votes; the better score is 0.3, the other answer's 0.9; the model
        # found their tokens likely by 0.7 and 0.8; they have 3 and 1 tokens, the longest 4.
        ("plurality", {"said_votes": 2 / 3, "said_score": 0.3, "said_likelihood": 0.75, "said_tokens": 0.5,
                       "rival_score": 0.9}),
        # Answer 0, of chain 0 alone.
        ("best", {"said_votes": 1 / 3, "said_score": 0.9, "said_likelihood": 0.6, "said_tokens": 1.0,
                  "rival_score": 0.3}),
    ],
)  # fmt: skip
def test_what_would_be_answered_is_described(
    rule: str, expected: dict[str, float], hand_env: Callable[..., TestTimeComputeEnv]
) -> None:
    env = hand_env(aggregate=rule)
    state, _ = seen(env, after(env, first=0))
    assert {name: state[name] for name in expected} == pytest.approx(expected)
    assert state["mean_score"] == pytest.approx((0.9 + 0.2 + 0.3) / 3)


def test_an_open_branch_tells_what_it_has_said(hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    env = hand_env()
    for seed in range(200):
        row = env.reset(seed=seed)[0]
        assert seen(env, row["observations"])[0]["said_votes"] == 0.0  # nothing is said yet
        row = env.step(0)[0]
        if block(env.lanes.place[0], CHAIN, 3)[0] == 0:
            break
    _, actions = seen(env, row["observations"])
    going_on = actions[env.world.action_of("continue", 0)]
    # Two tokens of the longest chain's four, which the model found likely by 0.5 each.
    assert (going_on["tokens"], going_on["likelihood"]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    # On a scale of three powers of ten: 1 is 1, a tenth 2/3, a thousandth and less 0.
    ("price", "expected"),
    [(1.0, 1.0), (0.1, 2 / 3), (0.001, 0.0), (0.0001, 0.0), (0, 0.0)],
)
def test_the_price_is_seen(price: float, expected: float, hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    env = hand_env(token_cost=price)
    state, _ = seen(env, env.reset(seed=0)[0]["observations"])
    assert (state["token_cost"], state["log_cost"]) == pytest.approx((price, expected), abs=1e-6)


def test_every_episode_draws_a_price_of_a_range_and_charges_it(hand_pool: Callable[..., ChainPool]) -> None:
    env = TestTimeComputeVectorEnv(400, pool=hand_pool(), max_branches=3, token_cost=(0.01, 1.0))
    row, _ = env.reset(seed=0)
    price = row["observations"][:, env.layout.state.index("token_cost")]
    assert 0.01 <= price.min() < 0.02
    assert 0.5 < price.max() <= 1.0
    # Even by ratio: half of the prices are below a tenth. A standard deviation of the share is 0.025.
    assert np.mean(price < 0.1) == pytest.approx(0.5, abs=0.1)
    _, reward, _, _, info = env.step(np.zeros(400, np.int64))
    spent = env.lanes.place[:, transition.SPENT] / env.world.unit
    assert reward == pytest.approx(-price * spent, rel=1e-5)
    assert info["reward_terms"]["tokens"]["weight"] == pytest.approx(price, rel=1e-5)
    alone = TestTimeComputeEnv(pool=hand_pool(), max_branches=3, token_cost=(0.01, 1.0))
    single, _ = alone.reset(seed=7)  # lane 7 of the batch
    assert single["observations"] == pytest.approx(row["observations"][7])


def test_the_kind_of_a_task_may_be_all_that_is_known(hand_pool: Callable[..., ChainPool]) -> None:
    pool = hand_pool(
        start=np.array([0, 2, 3]), right=np.array([[True, False]] * 2), prompts=("p", "q"), splits=("train", "train"),
        features=np.full((2, 3), 0.5, np.float32), kinds=("sum", "product"),
        low=np.array([[0, 0, 0], [0, 0, 1], [2, 2, 2]]),
        high=np.array([[2, 2, 1], [2, 2, 2], [3, 3, 3]]),
    )  # fmt: skip
    env = TestTimeComputeEnv(pool=pool, known="kind")
    for root, expected in ((0, (0.0, 1.0)), (1, (1.0, 0.0))):
        state, _ = seen(env, env.reset(seed=0, options={"root": root})[0]["observations"])
        assert (state["kind_product"], state["kind_sum"]) == expected
    assert not [name for name in TestTimeComputeEnv(pool=pool, known="nothing").layout.state if name.startswith("kind")]


def test_a_state_of_a_price_that_is_not_there_is_refused(hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    env = hand_env()
    env.reset(seed=0)
    state = env.clone_state()
    state["place"][:, transition.PRICE] = 1  # one price, number 0
    with pytest.raises(ConfigError, match="at a place that is not there"):
        env.restore_state(state)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"token_cost": (0.1, 0.01)}, "the lower price must come first"),
        ({"token_cost": (0, 0.1)}, "token_cost, of a range, is 0"),
        ({"token_cost": "cheap"}, "expected what the tokens of an average chain cost"),
        ({"token_cost": [0.1]}, "or the lowest and the highest"),
        ({"known": "answer"}, "known is 'answer'; it must be one of context, kind, nothing"),
        ({"known": "kind"}, "prompts have no kinds"),
    ],
)
def test_bad_prices_and_knowledge_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ComputeWorld(pool=SYNTHETIC, **settings)  # type: ignore[arg-type]


def test_ranges_of_prices_come_through_gymnasium() -> None:
    env = gym.make_vec("TestTimeCompute-v0", num_envs=2, pool=SYNTHETIC, token_cost=[0.01, 0.1])
    row, _ = env.reset(seed=0)
    assert row["observations"].shape[0] == 2
