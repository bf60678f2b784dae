"""What each algorithm makes of the same few episodes: advantages, targets, and who counts as right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.agents import DAPO, GRPO, ORZPPO, PPO, RLOO, VAPO, DrGRPO, ReinforcePlusPlus
from treegym.agents.play.rollout import Trajectories


def one_episode() -> Trajectories:
    """r = [0, 0, 5], V = [1, 2, 3], ended by a terminal; the environment calls it wrong all the same."""
    return episodes([[0.0, 0.0, 5.0]], values=[1.0, 2.0, 3.0], correct=[0.0])


def one_group() -> Trajectories:
    """Four episodes from one root, the first of them right; two steps each."""
    return episodes([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], correct=[1.0, 0.0, 0.0, 0.0])


def episodes(rewards: list[list[float]], *, correct: list[float], values: list[float] | None = None) -> Trajectories:
    count, steps = len(rewards), sum(map(len, rewards))
    zeros = np.zeros(steps, np.float32)
    return Trajectories(
        rows={"observations": np.zeros((steps, 9), np.float32), "action_mask": np.ones((steps, 4), np.int8)},
        actions=np.zeros(steps, np.int64),
        log_probs=zeros,
        values=zeros if values is None else np.array(values, np.float32),
        rewards=np.concatenate(rewards).astype(np.float32),
        lengths=np.array([len(r) for r in rewards]),
        terminated=np.ones(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
        bootstrap=np.zeros(count, np.float32),
        correct=np.array(correct, np.float32),
        groups=np.zeros(count, np.int64),
        roots=np.zeros(count, np.int64),
    )


@pytest.mark.parametrize(
    ("kind", "switches", "advantages", "targets"),
    [
        # deltas are [1, 1, 2]; A_t = delta_t + lambda A_{t+1}; targets are A + V
        (PPO, {"gamma": 1.0, "gae_lambda": 0.0}, [1, 1, 2], [2, 3, 5]),
        (PPO, {"gamma": 1.0}, [3.755, 2.9, 2], [4.755, 4.9, 5]),
        (ORZPPO, {}, [4, 3, 2], [5, 5, 5]),
        # VAPO: the critic's lambda is 1; the policy's is 1 - 1 / (alpha l) with l = 3, so 2/3 at alpha 1, 0 at 1/3
        (VAPO, {}, [1 + 2 / 3 * (1 + 4 / 3), 1 + 4 / 3, 2], [5, 5, 5]),
        (VAPO, {"alpha": 1 / 3}, [1, 1, 2], [5, 5, 5]),
        (VAPO, {"length_adaptive": False}, [3.755, 2.9, 2], [5, 5, 5]),
        (VAPO, {"length_adaptive": False, "decoupled": False}, [3.755, 2.9, 2], [4.755, 4.9, 5]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*lambda")
def test_advantages_against_a_critic(
    identity: Any, kind: Any, switches: dict[str, Any], advantages: list[float], targets: list[float]
) -> None:
    found = kind("ChildPolicy", identity(), seed=0, **switches).weigh(one_episode())
    np.testing.assert_allclose(found[0], advantages, atol=1e-5)
    np.testing.assert_allclose(found[1], targets, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "first", "others"),
    [(DAPO, 1.5, -0.5), (GRPO, 1.5, -0.5), (RLOO, 1.0, -1 / 3), (DrGRPO, 0.75, -0.25)],
)
def test_advantages_within_a_group(identity: Any, kind: Any, first: float, others: float) -> None:
    agent = kind("ChildPolicy", identity(), seed=0)
    found, _ = agent.weigh(one_group())
    np.testing.assert_allclose(found, [first] * 2 + [others] * 6, atol=1e-5)
    assert not agent.settings.normalize_advantage  # groups are normalised once


def test_reinforce_whitens_returns_to_go(identity: Any) -> None:
    found, _ = ReinforcePlusPlus("ChildPolicy", identity(), seed=0).weigh(one_group())
    plain = np.array([1.0, 1.0] + [0.0] * 6)
    np.testing.assert_allclose(found, (plain - plain.mean()) / plain.std(ddof=1), atol=1e-3)


def test_what_is_imitated_is_right_not_merely_rewarded(identity: Any) -> None:
    agent = VAPO("ChildPolicy", identity(), seed=0)
    assert agent.nll_coef() == 0.1
    assert not agent.lesson(one_episode()).correct.any()
    np.testing.assert_array_equal(agent.lesson(one_group()).correct, [True] * 2 + [False] * 6)


@pytest.mark.parametrize(
    ("kind", "switches"),
    [
        (DAPO, {"clip_range_high": 0.28, "dual_clip": 10.0, "aggregation": "token", "kl_coef": 0.0}),
        (VAPO, {"clip_range_high": 0.28, "aggregation": "token", "lambda_critic": 1.0, "nll_weight": 0.1}),
        (GRPO, {"clip_range_high": None, "aggregation": "sample", "kl_in": "loss", "kl_estimator": "k3"}),
        (DrGRPO, {"aggregation": "constant", "horizon": 48, "kl_coef": 0.0}),
        (RLOO, {"advantage": "leave_one_out", "clip_range_high": None, "dynamic_sampling": False}),
        (ReinforcePlusPlus, {"gamma": 1.0, "kl_in": "reward", "kl_coef": 0.01}),
        (ORZPPO, {"gamma": 1.0, "gae_lambda": 1.0, "kl_coef": 0.0}),
    ],
)
def test_what_sets_them_apart_by_default(identity: Any, kind: Any, switches: dict[str, Any]) -> None:
    agent = kind("ChildPolicy", identity(), seed=0)
    assert {name: getattr(agent.settings, name) for name in switches} == switches
    high = switches.get("clip_range_high") or 0.2
    assert agent.whole(agent.lesson(one_group())).clip_high == high
