"""The transition functions, by hand-worked numbers."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 (registers the ids)
from treegym.envs.selection.selection_world import SelectionWorld
from treegym.errors import ConfigError, DataError
from treegym.optimize.fitness import fitness, scores, weights_of, zones_of
from treegym.optimize.table import load_table

# scores are r/(1+r): 1x 1/2, 2x 2/3, 3x 3/4, 4x 4/5; weights 0.4, 0.3, 0.3
BASE = 0.4 * 0.5 + 0.3 * 0.5 + 0.3  # 0.65
BF16 = 0.4 * 2 / 3 + 0.3 * 2 / 3 + 0.3 * 0.9  # 0.73666
BOTH = 0.4 * 0.75 + 0.3 * 2 / 3 + 0.3 * 0.9  # 0.77, the best
LOW_RANK = 0.4 * 0.8 + 0.3 * 0.8  # 0.56: fast and small, but all accuracy lost


def test_fitness_by_hand() -> None:
    weights = weights_of(None)
    for metrics, expected in (((1, 1, 1), BASE), ((2, 2, 0.9), BF16), ((3, 2, 0.9), BOTH), ((4, 4, 0), LOW_RANK)):
        assert float(fitness(scores(*metrics), weights)) == pytest.approx(expected)
    assert weights_of({"speed": 2.0, "memory": 2.0}).tolist() == [0.5, 0.5, 0.0]


def _act(env: gym.Env, name: str) -> int:
    world, lanes = env.unwrapped.world, env.unwrapped.lanes  # type: ignore[attr-defined]
    return world.action_names(lanes.place[0]).index(name)


def test_measure_then_commit(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file, evaluation_cost=0.01, num_candidates=4)
    env.reset(seed=0)
    assert env.unwrapped.world.solution.fitness[0] == pytest.approx(BOTH)  # type: ignore[attr-defined]
    best = _act(env, "inplace+bf16")
    _, reward, terminated, _, info = env.step(best)
    assert (reward, terminated) == (pytest.approx(-0.01), False)
    assert info["vector_reward"] == pytest.approx([0, 0, 0, -0.01])
    _, reward, terminated, _, info = env.step(best)
    assert terminated
    assert info["is_success"]
    assert reward == pytest.approx(BOTH - BASE)
    assert info["vector_reward"] == pytest.approx([0.75 - 0.5, 2 / 3 - 0.5, -0.1, 0.0])
    assert info["text"].endswith("inplace+bf16")


def test_commit_to_worse_is_no_success_and_costs(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file, num_candidates=4, evaluation_cost=0.0)
    env.reset(seed=1)
    action = _act(env, "low_rank")
    env.step(action)
    _, reward, terminated, _, info = env.step(action)
    assert terminated
    assert not info["is_success"]
    assert reward == pytest.approx(LOW_RANK - BASE)


def test_keeping_the_original_pays_nothing(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(env.action_space.n - 1)  # type: ignore[attr-defined]
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, True, False, False)


def test_padding_is_masked_and_illegal(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file, num_candidates=6, illegal_penalty=0.25)
    seen, _ = env.reset(seed=0)
    assert seen["action_mask"].tolist() == [1, 1, 1, 1, 0, 0, 1]  # four candidates were recorded
    again, reward, terminated, _, info = env.step(5)
    assert (reward, terminated, info["illegal_action"]) == (-0.25, False, True)
    assert again["observations"][-60:].tolist() == seen["observations"][-60:].tolist()


def test_thresholds_commit_by_themselves(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file, num_candidates=4, performance_threshold=0.73)
    env.reset(seed=0)
    _, _, terminated, _, info = env.step(_act(env, "bf16"))
    assert terminated
    assert info["vector_reward"][0] == pytest.approx(2 / 3 - 0.5)
    env = gym.make("CandidateSelection-v0", table=table_file, num_candidates=4, convergence_threshold=0.01)
    env.reset(seed=0)
    for name, ends in (("bf16", False), ("low_rank", False), ("inplace", True)):  # two in a row without improvement
        _, _, terminated, _, info = env.step(_act(env, name))
        assert terminated is ends
    assert info["vector_reward"][0] == pytest.approx(2 / 3 - 0.5)  # committed to the best that was measured


def test_budget_truncates(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file, num_candidates=4, max_iterations=2)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    assert env.step(1)[2:4] == (False, True)
    with pytest.raises(ConfigError, match="has ended"):
        env.step(0)


def test_pipeline_builds_ensembles(table_file: str) -> None:
    env = gym.make("OptimizationPipeline-v0", table=table_file, evaluation_cost=0.01)
    env.reset(seed=0)
    world = env.unwrapped.world  # type: ignore[attr-defined]
    assert world.solution.value[0] == pytest.approx(BOTH - BASE - 0.02)
    total = 0.0
    for name in ("bf16", "inplace", "stop"):  # the other way round than they are applied: the same ensemble
        _, reward, terminated, _, info = env.step(_act(env, name))
        total += reward
    assert terminated
    assert info["is_success"]
    assert total == pytest.approx(BOTH - BASE - 0.02)
    env.reset(seed=0)
    env.step(_act(env, "low_rank"))
    assert _names(env) == ["", "", "", "stop"]  # no larger ensemble was recorded


def _names(env: gym.Env) -> list[str]:
    return env.unwrapped.world.action_names(env.unwrapped.lanes.place[0])  # type: ignore[attr-defined]


def test_exact_optimum_agrees_with_search_by_hand() -> None:
    """On the shipped table: no sequence of two measurements and a commit beats the solution's value."""
    world = SelectionWorld(split="test", sets=2)
    for root in world.pool[:6]:
        records = world.candidates[root][world.candidates[root] >= 0]
        gains = world.fitness[records] - world.base_fitness
        assert world.solution.value[root] == pytest.approx(max(0.0, float(gains.max()) - world.cost))
        front = world.solution.pareto[root]
        for record in records:
            dominated = any(
                (world.score[f] >= world.score[record]).all() and (world.score[f] > world.score[record]).any()
                for f in front
            )
            assert dominated != (record in front)


def test_observation_shows_measurements_only_when_made(table_file: str) -> None:
    env = gym.make("CandidateSelection-v0", table=table_file, num_candidates=4)
    seen, _ = env.reset(seed=0)
    layout = env.unwrapped.layout  # type: ignore[attr-defined]
    columns = [layout.child_column(name) for name in ("speed", "memory", "accuracy", "gain")]
    _, children = layout.split(seen["observations"])
    assert not children[:, columns].any()
    action = _act(env, "bf16")
    seen, *_ = env.step(action)
    _, children = layout.split(seen["observations"])
    assert children[action, columns] == pytest.approx([2 * (2 / 3 - 0.5), 2 * (2 / 3 - 0.5), -0.1, 5 * (BF16 - BASE)])
    assert not np.delete(children, action, axis=0)[:, columns].any()


def test_history_never_holds_a_module_s_own_results(table_file: str, tmp_path: object) -> None:
    import json
    from pathlib import Path

    from treegym.envs.selection.features import expected_scores

    data = json.loads(Path(table_file).read_text())
    changed = Path(str(tmp_path)) / "changed.json"
    for row in data["modules"][2]["records"]:
        if row["measurement"]:
            row["measurement"]["speed"]["value"] *= 3
    changed.write_text(json.dumps(data))
    before, after = expected_scores(load_table(table_file))[0], expected_scores(load_table(changed))[0]
    assert np.array_equal(before, after)  # the test module's results changed, no expectation did


def test_zones_shape_the_reward(table_file: str) -> None:
    plain = gym.make("CandidateSelection-v0", table=table_file, num_candidates=4, evaluation_cost=0.0)
    zoned = gym.make(
        "CandidateSelection-v0", table=table_file, num_candidates=4, evaluation_cost=0.0,
        reward_zones=[[-1.0, -2.0], [0.0, 0.0], [1.0, 1.0]],
    )  # fmt: skip
    for env, expected in ((plain, LOW_RANK - BASE), (zoned, 2 * (LOW_RANK - BASE))):
        env.reset(seed=0)
        action = _act(env, "low_rank")
        env.step(action)
        assert env.step(action)[1] == pytest.approx(expected)
    with pytest.raises(ConfigError, match="rise"):
        zones_of([[0.0, 0.0], [1.0, -1.0]])


def test_damaged_tables_are_told(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "t.json"
    for text, message in (
        ("{", "not valid JSON"),
        ('{"format": 9}', "format 9"),
        ('{"format": 1, "modules": [{"split": "elsewhere"}]}', "damaged"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            load_table(file)
    with pytest.raises(DataError, match="cannot be read"):
        load_table(Path(str(tmp_path)) / "absent.json")


@pytest.mark.parametrize(
    "settings",
    [
        {"split": "tests"}, {"num_candidates": 0}, {"num_candidates": 63}, {"max_iterations": 1},
        {"evaluation_cost": -1.0}, {"objective_weights": {"pace": 1.0}}, {"objective_weights": {"speed": 0.0}},
        {"source": "guessed"}, {"model": "zoo:mlp/0"}, {"performance_threshold": float("nan")},
    ],
)  # fmt: skip
def test_bad_settings(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        gym.make("CandidateSelection-v0", **settings)
