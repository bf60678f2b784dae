"""Every registered method: legal moves, budgets, independence of the batch split; and what each is known for."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import names, register, search
from treegym.search.posteriors import Mixed, Prior, Scores, mixed_draws
from treegym.search.rollouts import best_of_policy


@pytest.mark.parametrize("method", names())
def test_every_method_plays_legal_moves_within_its_budget(worlds: Any, method: str) -> None:
    world = worlds.random_world(3)
    roots = np.flatnonzero(~world.terminal)[:6]
    result = search(world, roots, method=method, num_simulations=24, seed=1)
    assert world.legal[roots, result.action].all()
    np.testing.assert_allclose(result.policy.sum(1), 1.0, atol=1e-5)
    assert (result.policy[~world.legal[roots]] == 0).all()
    assert (result.visits[~world.legal[roots]] == 0).all()
    assert np.isfinite(result.value).all()
    assert result.simulations <= 24
    judged = world.judged - (2 if method == "sample" else 1) * len(roots)
    assert judged <= result.simulations * len(roots)


@pytest.mark.parametrize("budget", [1, 13])
@pytest.mark.parametrize("method", names())
def test_a_budget_is_the_most_that_is_charged(worlds: Any, method: str, budget: int) -> None:
    world = worlds.random_world(5)
    world.terminal[:] = False
    roots = np.array([0, 7])
    result = search(world, roots, method=method, num_simulations=budget)
    assert result.simulations <= budget
    assert world.judged <= (budget + 2) * len(roots)  # the roots themselves, which "sample" judges twice


@pytest.mark.parametrize("method", names())
def test_results_do_not_depend_on_the_batch_split(worlds: Any, method: str) -> None:
    world = worlds.random_world(4)
    roots = np.flatnonzero(~world.terminal)[:6]
    options: dict[str, Any] = {"method": method, "num_simulations": 16, "seed": 5}
    whole = (
        search(world, roots, root_ids=np.arange(6), **options)
        if method != "greedy"
        else search(world, roots, **options)
    )
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        extra = {} if method == "greedy" else {"root_ids": np.arange(6)[part]}
        some = search(world, roots[part], **options, **extra)
        np.testing.assert_array_equal(some.action, whole.action[part])
        np.testing.assert_array_equal(some.visits, whole.visits[part])
        np.testing.assert_allclose(some.policy, whole.policy[part], atol=1e-6)


@pytest.mark.parametrize("method", names())
def test_the_same_seed_gives_the_same_result(worlds: Any, method: str) -> None:
    world = worlds.random_world(6)
    roots = np.flatnonzero(~world.terminal)[:3]
    first, second = (search(world, roots, method=method, num_simulations=12, seed=9) for _ in range(2))
    np.testing.assert_array_equal(first.action, second.action)
    np.testing.assert_array_equal(first.policy, second.policy)


EXHAUSTIVE = ["beam", "best_first", "depth_first", "ab_mcts"]


@pytest.mark.parametrize("method", EXHAUSTIVE)
def test_with_room_for_the_whole_tree_the_optimum_is_found(worlds: Any, method: str) -> None:
    tree = worlds.random_tree(1, roots=3, depth=3, branching=3)
    tree["value"][:] = 0
    extra = {"width": 100} if method != "ab_mcts" else {}
    result = search(worlds.TreeWorld(tree), np.arange(3), method=method, num_simulations=400, **extra)
    np.testing.assert_allclose(result.value, worlds.optimum(tree, 1.0)[:3], atol=1e-5)


@pytest.mark.parametrize("method", ["puct", "gumbel", "uct"])
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_tree_methods_converge_to_backward_induction(worlds: Any, method: str, discount: float) -> None:
    tree = worlds.random_tree(2, roots=4, depth=3, branching=3)
    exact = worlds.optimum(tree, discount)
    result = search(
        worlds.TreeWorld(tree), np.arange(4), method=method, num_simulations=600, discount=discount, solve=True
    )
    np.testing.assert_allclose(result.value, exact[:4], atol=1e-4)
    best = tree["first_child"][:4] + result.action
    np.testing.assert_allclose(tree["reward"][best] + discount * exact[best], exact[:4], atol=1e-4)


@pytest.mark.parametrize("method", ["puct", "gumbel", "uct"])
def test_without_solving_the_best_move_is_still_found(worlds: Any, method: str) -> None:
    tree = worlds.random_tree(5, roots=4, depth=3, branching=3, bounded=False)  # negative, unbounded rewards
    exact = worlds.optimum(tree, 1.0)
    result = search(worlds.TreeWorld(tree), np.arange(4), method=method, num_simulations=3000, gumbel_scale=0.0)
    best = tree["first_child"][:4] + result.action
    np.testing.assert_allclose(tree["reward"][best] + exact[best], exact[:4], atol=1e-4)


def test_greedy_plays_the_likeliest_and_sampling_follows_the_policy(worlds: Any) -> None:
    world = worlds.random_world(8, masks=False)
    roots = np.flatnonzero(~world.terminal)[:1].repeat(4000)
    assert (search(world, roots, method="greedy", num_simulations=1).action == world.logits[roots[0]].argmax()).all()
    drawn = np.bincount(search(world, roots, method="sample", num_simulations=1).action, minlength=6) / 4000
    policy = np.exp(world.logits[roots[0]])
    np.testing.assert_allclose(drawn, policy / policy.sum(), atol=0.03)


def test_best_of_n_picks_the_better_path_and_reranks(worlds: Any) -> None:
    # one root, two moves to terminals: rewards 0 and 1, the worse one likelier
    world = worlds.TableWorld(
        np.array([[1.0, 0.0], [0, 0], [0, 0]], np.float32),
        np.zeros(3, np.float32),
        np.array([[0.0, 1.0], [0, 0], [0, 0]], np.float32),
        np.array([[1, 2], [0, 0], [0, 0]]),
        np.array([False, True, True]),
    )
    root = np.array([0])
    assert search(world, root, method="best_of_n", num_simulations=32).action[0] == 1
    worse = search(world, root, method="best_of_n", num_simulations=32, rerank=lambda states, returns: -returns)
    assert worse.action[0] == 0


def test_best_of_policy_by_hand() -> None:
    # n = 3 samples, k = 2: the best of two drawn is rank 2 with C(1,1)/C(3,2) = 1/3 and rank 3 with C(2,1)/3 = 2/3
    policy = best_of_policy(np.array([0.1, 0.9, 0.5]), np.array([0, 1, 0]), best_of=2, num_actions=3)
    np.testing.assert_allclose(policy, [1 / 3, 2 / 3, 0.0])
    # equal scores share: ranks (1, 2, 3) of k = 3 would be (0, 0, 1); the two best are equal
    tied = best_of_policy(np.array([0.5, 0.0, 0.5]), np.array([0, 1, 2]), best_of=3, num_actions=3)
    np.testing.assert_allclose(tied, [0.5, 0.0, 0.5])


def test_ab_mcts_posterior_by_hand() -> None:
    scores = Scores()
    scores.add(1.0)
    scores.add(0.0)
    # n 2, mean .5, squares .5: kappa 3, nu 3, mean (0 + 2 * .5) / 3 = 1/3,
    # nu tau2 = .1 + .5 + 2 * 1 / 3 * .25 = .766667, tau2 = .255556
    np.testing.assert_allclose(scores.posterior(), [1 / 3, 3, 3, 0.7666667 / 3], rtol=1e-6)


def test_ab_mcts_prefers_the_arm_that_generates_better(worlds: Any) -> None:
    # eight moves to terminals: arm 0 pays 0, arm 1 pays 1; four of each
    reward = np.zeros((9, 8), np.float32)
    reward[0, 4:] = 1.0
    world = worlds.TableWorld(
        np.zeros((9, 8), np.float32),
        np.zeros(9, np.float32),
        reward,
        np.tile(np.arange(1, 9), (9, 1)),
        np.arange(9) > 0,
    )
    arms = np.repeat([0, 1], 4)
    result = search(
        world,
        np.zeros(64, int),
        method="ab_mcts",
        num_simulations=4,
        arms=lambda states: np.tile(arms, (len(states), 1)),
    )
    assert result.visits[:, 4:].sum() > 1.3 * result.visits[:, :4].sum()


def test_the_mixed_model_draws_from_its_posterior() -> None:
    """Against importance sampling of the model as it is written down, in another way and with other random numbers."""
    rng = np.random.default_rng(0)
    groups = []
    for scores in ([0.2, 0.3, 0.25], [0.8], [0.6, 0.7]):
        groups.append(Scores())
        for score in scores:
            groups[-1].add(score)
    drawn = [mixed_draws(groups, Mixed(), rng) for _ in range(4000)]
    ours = np.array([[*known, unseen] for known, unseen in drawn])
    count = 400_000
    mu = rng.normal(0.5, 0.2, count)
    between, noise = abs(rng.normal(0, 0.2, count)), abs(rng.normal(0, 0.3, count))
    alpha = mu[:, None] + between[:, None] * rng.normal(size=(count, 4))
    log = np.zeros(count)
    for j, scores in enumerate(([0.2, 0.3, 0.25], [0.8], [0.6, 0.7])):
        for score in scores:
            log += -0.5 * ((score - alpha[:, j]) / noise) ** 2 - np.log(noise)
    weight = np.exp(log - log.max())
    mean = (weight[:, None] * alpha).sum(0) / weight.sum()
    spread = np.sqrt((weight[:, None] * ((alpha - mean) ** 2 + noise[:, None] ** 2)).sum(0) / weight.sum())
    np.testing.assert_allclose(ours.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(ours.std(0), spread, rtol=0.12)


@pytest.mark.parametrize("prior", [Prior(), Mixed()])
def test_arms_are_chosen_by_what_they_generated_anywhere(worlds: Any, prior: Any) -> None:
    # eight levels of four moves; moves 2 and 3 (arm 1) lead to states worth 1, moves 0 and 1 (arm 0) to ones worth 0
    states = 200
    world = worlds.TableWorld(
        np.zeros((states, 4), np.float32), (np.arange(states) % 4 >= 2).astype(np.float32),
        np.zeros((states, 4), np.float32), np.tile(4 + np.arange(4), (states, 1)), np.zeros(states, bool),
    )  # fmt: skip
    taken: list[int] = []
    step = world.step
    world.step = lambda states, actions: (taken.extend(actions.tolist()), step(states, actions))[1]
    search(
        world, np.zeros(16, int), method="ab_mcts", num_simulations=40, prior=prior,
        arms=lambda states: np.tile([0, 0, 1, 1], (len(states), 1)),
    )  # fmt: skip
    # a search that learned of arms anew at every node took as many of both: 0.50 to 0.52 with four seeds
    assert np.mean(np.array(taken) >= 2) > 0.58


def test_what_is_assumed_of_scores_is_checked(worlds: Any) -> None:
    world = worlds.random_world(1)
    for prior, message in (
        (0.5, "prior is 0.5; it must be a"),
        (Prior(tau2=0.0), "prior.tau2 is 0.0; it must be a positive number"),
        (Mixed(spread_mean=-1.0), "prior.spread_mean is -1.0"),
        (Prior(mean=float("nan")), "prior.mean is nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(world, np.array([0]), method="ab_mcts", num_simulations=4, prior=prior)


def test_unknown_names_are_told_the_closest_and_own_methods_register(worlds: Any) -> None:
    world = worlds.random_world(1)
    with pytest.raises(ConfigError, match="Did you mean 'gumbel'"):
        search(world, np.array([0]), method="gumbl", num_simulations=4)
    register("mine", lambda simulator, states, **settings: search(simulator, states, **{**settings, "method": "puct"}))
    roots = np.flatnonzero(~world.terminal)[:2]
    np.testing.assert_array_equal(
        search(world, roots, method="mine", num_simulations=8).visits,
        search(world, roots, method="puct", num_simulations=8).visits,
    )
    with pytest.raises(ConfigError, match="exists already"):
        register("puct", lambda simulator, states, **settings: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("method", ["puct", "beam", "best_first", "depth_first", "best_of_n", "ab_mcts", "lookahead"])
def test_every_method_stops_when_calls_or_time_are_spent(worlds: Any, method: str) -> None:
    world = worlds.random_world(9)
    roots = np.flatnonzero(~world.terminal)[:3]
    result = search(world, roots, method=method, num_simulations=10_000, model_calls=4)
    assert world.calls <= 5  # the roots' own call and four more
    assert world.legal[roots, result.action].all()
    start = time.monotonic()
    result = search(world, roots, method=method, num_simulations=10**6 if method == "puct" else 10**5, seconds=0.05)
    assert time.monotonic() - start < 10.0  # all simulations take far longer
    assert world.legal[roots, result.action].all()


def test_a_beam_with_budget_left_goes_back_to_what_it_left_behind(worlds: Any) -> None:
    tree = worlds.random_tree(1, roots=3, depth=3, branching=3)
    tree["value"][:] = 0
    found = [
        search(worlds.TreeWorld(tree), np.arange(3), method="beam", num_simulations=budget, width=1).value.sum()
        for budget in (3, 9, 400)
    ]
    assert found == sorted(found)
    np.testing.assert_allclose(found[-1], worlds.optimum(tree, 1.0)[:3].sum(), atol=1e-5)


@pytest.mark.parametrize("method", ["beam", "best_first", "depth_first"])
def test_an_estimate_counts_no_longer_once_what_is_below_is_known(worlds: Any, method: str) -> None:
    tree = worlds.random_tree(4, roots=3, depth=3, branching=3)
    tree["value"][:] = 50.0  # a value network that promises far too much
    result = search(worlds.TreeWorld(tree), np.arange(3), method=method, num_simulations=400)
    np.testing.assert_allclose(result.value, worlds.optimum(tree, 1.0)[:3], atol=1e-5)
