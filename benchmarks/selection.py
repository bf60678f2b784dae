"""Candidate selection: who finds the best optimisation of a module it never saw, with how many measurements.

Recorded part: held-out modules, sets of 20 candidates, a budget of 10 measurements. Searchers that do not learn run on
every root; agents learn on training modules and are asked in which order they would measure (their own choice to stop
is a cell of its own). Live part: `treegym optimize`'s core on a transformer with hand-written attention that is not in
the zoo, on a module that nothing can help, and two measurements of the same candidates.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from common import emit, parse, peer_absent, table

import treegym  # noqa: F401 (registers the ids)
from treegym.envs.selection.searchers import SEARCHERS, best_so_far, search_order
from treegym.envs.selection.selection_world import SelectionWorld
from treegym.optimize.fitness import fitness, hypervolume, scores, weights_of

BUDGET = 10  # measurements that random search gets
SETTINGS: dict[str, Any] = {"num_candidates": 20, "sets": 4}
TRAINING: dict[str, Any] = {"num_candidates": 20, "sets": 64}
STEPS = {"PPO": 100_000, "DAPO": 100_000, "VAPO": 100_000, "AlphaZero": 20_000}
PRIOR_WEIGHT = 0.5  # agents start by trusting the history of strategies, as tournament and rank do
SWITCHES: dict[str, dict[str, Any]] = {
    "PPO": {"learning_rate": 1e-3, "gamma": 1.0, "ent_coef": 0.01},
    "DAPO": {"learning_rate": 1e-3, "ent_coef": 0.01},
    "VAPO": {"learning_rate": 1e-3, "ent_coef": 0.01},
    "AlphaZero": {"num_simulations": 12, "n_episodes": 64},
}


def main() -> None:
    args = parse(__doc__ or "")
    seeds = range(1 if args.quick else 5)
    share = 0.05 if args.quick else 1.0
    world = SelectionWorld(split="test", **SETTINGS)
    cells = [searcher_cell(world, name, seeds) for name in SEARCHERS] + [tpe_cell(world, seeds, quick=args.quick)]
    random_final = cells[0]["fitness"]
    for name in STEPS:
        runs = [agent_run(world, name, seed, int(STEPS[name] * share)) for seed in seeds]
        cells.append(summary(world, name, [curve for curve, _ in runs], [stop for _, stop in runs]))
    for cell in cells:
        needed = first_reaching(cell.pop("curve"), random_final)
        cell["evaluations_to_random"] = needed
        cell["vs_random"] = needed / BUDGET
    print(table([{key: cell.get(key, "") for key in COLUMNS} for cell in cells]), flush=True)
    learned = [cell["vs_random"] for cell in cells if cell["searcher"] in STEPS]
    figures = {
        "evaluations_vs_random": max(learned),  # of the agent that needs most
        "optimum": float(world.solution.fitness[world.pool].mean()),
        "recorded_steps_per_s_1024": stepping(quick=args.quick),
    }
    live, more = live_part(quick=args.quick)
    emit("selection", figures | live, [*cells, *more])


COLUMNS = (
    "searcher", "fitness", "regret", "hypervolume", "evaluations_to_random", "vs_random", "own_evaluations",
    "own_fitness", "own_regret",
)  # fmt: skip


# ------------------------------------------------------------------ recorded


def searcher_cell(world: SelectionWorld, method: str, seeds: range) -> dict[str, Any]:
    """Returns a searcher's cell: mean over roots and seeds."""
    orders = [
        [
            search_order(world, int(root), method=method, seed=1000 * seed + i, budget=BUDGET)
            for i, root in enumerate(world.pool)
        ]
        for seed in seeds
    ]
    return summary(world, method, orders, None)


def tpe_cell(world: SelectionWorld, seeds: range, *, quick: bool) -> dict[str, Any]:
    """Returns Optuna's cell: TPE over a flag for each strategy; the nearest candidate not yet measured is taken."""
    try:
        import optuna
    except ImportError:
        peer_absent("optuna", "pip install optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    orders = []
    for seed in seeds:
        rows = []
        for i, root in enumerate(world.pool):
            if quick and i % 8:
                rows.append(search_order(world, int(root), method="random", seed=i, budget=BUDGET))
                continue
            rows.append(_tpe_order(world, int(root), seed=1000 * seed + i, optuna=optuna))
        orders.append(rows)
    return summary(world, "optuna_tpe", orders, None)


def _tpe_order(world: SelectionWorld, root: int, *, seed: int, optuna: Any) -> list[int]:
    records = world.candidates[root]
    records = records[records >= 0]
    contains = world.table.contains[records]
    flags = [s for s in range(contains.shape[1]) if contains[:, s].any()]
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4))
    waiting = np.ones(len(records), bool)
    order: list[int] = []
    for _ in range(min(BUDGET, len(records))):
        trial = study.ask()
        wanted = np.array([trial.suggest_categorical(str(s), [False, True]) for s in flags])
        distance = (contains[:, flags] != wanted).sum(1) + np.where(waiting, 0, 1000)
        position = int(distance.argmin())
        waiting[position] = False
        order.append(int(records[position]))
        study.tell(trial, float(world.fitness[records[position]]))
    return order


def agent_run(world: SelectionWorld, name: str, seed: int, steps: int) -> tuple[list[list[int]], dict[str, float]]:
    """Trains an agent; returns the order in which it would measure each held-out root, and what it does on its own."""
    import torch

    from treegym import agents

    torch.set_num_threads(1)
    start = time.perf_counter()
    if name == "AlphaZero":  # it plans, so its lanes must be ones that can be cloned
        env: Any = gym.make("CandidateSelection-v0", **TRAINING)
    else:
        env = gym.make_vec("CandidateSelection-v0", num_envs=64, autoreset_mode="Disabled", **TRAINING)
    agent = getattr(agents, name)(
        "ChildPolicy",
        env,
        seed=seed,
        device="cpu",
        policy_kwargs={"prior_weight": PRIOR_WEIGHT, "hidden": 32},
        **SWITCHES[name],
    )
    agent.learn(max(steps, 200))
    print(f"{name} seed {seed}: {agent.num_timesteps} steps, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return forced_orders(world, agent), own_way(world, agent)


def forced_orders(world: SelectionWorld, agent: Any) -> list[list[int]]:
    """Lets the agent measure its favourite of what is not yet measured, ten times; it never searches here.

    A search would need the measurements it is to choose: on held-out modules only the policy is asked.
    """
    state = np.zeros((len(world.pool), 5), np.int64)
    state[:, 0], state[:, 3] = world.pool, -1
    orders: list[list[int]] = [[] for _ in world.pool]
    candidates = world.candidates[world.pool]
    for _ in range(BUDGET):
        logits = agent.scorer.infer(world.observe(state))[0][:, :-1]
        seen = (state[:, 2:3] >> np.arange(candidates.shape[1])) & 1
        position = np.where((seen == 1) | (candidates < 0), -np.inf, logits).argmax(1)
        for lane, place in enumerate(position.tolist()):
            if candidates[lane, place] < 0 or (state[lane, 2] >> place) & 1:
                continue
            orders[lane].append(int(candidates[lane, place]))
            state[lane, 2] |= 1 << place
            state[lane, 1] += 1
            best = world.base_fitness if state[lane, 3] < 0 else world.fitness[candidates[lane, state[lane, 3]]]
            if world.fitness[candidates[lane, place]] > best:
                state[lane, 3] = place
    return orders


def own_way(world: SelectionWorld, agent: Any) -> dict[str, float]:
    """Plays the environment with the agent's greedy choices: when to stop is its own decision."""
    lanes = len(world.pool)
    env = gym.make_vec(
        "CandidateSelection-v0", num_envs=lanes, autoreset_mode="SameStep", split="test", **SETTINGS
    )  # fmt: skip
    seen, _ = env.reset(seed=0, options={"roots": world.pool})
    going, measured, final = np.ones(lanes, bool), np.zeros(lanes), np.full(lanes, world.base_fitness)
    while going.any():
        seen, _, terminated, truncated, info = env.step(agent.scorer.best(dict(seen)))
        gains = info["vector_reward"]
        measured += going & (gains[:, 3] < 0)
        final += going * (gains[:, :3] @ world.weights)
        going &= ~(terminated | truncated)
    optimum = world.solution.fitness[world.pool]
    return {
        "own_evaluations": float(measured.mean()),
        "own_fitness": float(final.mean()),
        "own_regret": float((optimum - final).mean()),
    }


def summary(
    world: SelectionWorld, name: str, orders: list[list[list[int]]], stops: list[dict[str, float]] | None
) -> dict[str, Any]:
    """Returns a cell: medians over seeds of means over held-out roots."""
    curves = np.array([np.mean([best_so_far(world, order, BUDGET) for order in rows], axis=0) for rows in orders])
    optimum = float(world.solution.fitness[world.pool].mean())
    whole = [hypervolume(_all(world, int(root))) for root in world.pool]
    volumes = [
        np.mean([hypervolume(world.score[order]) / full for order, full in zip(rows, whole, strict=True)])
        for rows in orders
    ]
    cell: dict[str, Any] = {
        "searcher": name,
        "curve": np.median(curves, axis=0),
        "fitness": float(np.median(curves[:, -1])),
        "regret": optimum - float(np.median(curves[:, -1])),
        "regret_by_measurements": [round(optimum - float(value), 5) for value in np.median(curves, axis=0)],
        "hypervolume": float(np.median(volumes)),  # share of the whole set's that ten measurements cover
        "seeds": len(orders),
    }
    if stops:
        cell |= {key: statistics.median(stop[key] for stop in stops) for key in stops[0]}
    return cell


def _all(world: SelectionWorld, root: int) -> np.ndarray:
    records = world.candidates[root]
    return world.score[records[records >= 0]]


def first_reaching(curve: np.ndarray, goal: float) -> float:
    """Returns how many measurements a mean curve needs to reach a fitness (interpolated), BUDGET where it does not."""
    for n in range(1, len(curve)):
        if curve[n] >= goal:
            return float(n - 1 + (goal - curve[n - 1]) / max(curve[n] - curve[n - 1], 1e-12))
    return float(BUDGET)


def stepping(*, quick: bool) -> float:
    """Returns lane-steps per second of the recorded environment at 1,024 lanes (median of rounds)."""
    env = gym.make_vec("CandidateSelection-v0", num_envs=1024)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = [rng.integers(env.single_action_space.n, size=1024) for _ in range(64)]  # type: ignore[attr-defined]
    rates = []
    for _ in range(3 if quick else 15):
        start = time.process_time()
        for action in actions:
            env.step(action)
        rates.append(64 * 1024 / (time.process_time() - start))
    return statistics.median(rates[1:])


# ------------------------------------------------------------------ live


def live_part(*, quick: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns live figures: the gain on an unseen transformer, the original kept, agreement of two measurements."""
    import torch
    from torch import nn

    from treegym.optimization import create_hybrid_optimization_core
    from treegym.optimize.zoo.encoder import Encoder

    torch.set_num_threads(1)
    torch.manual_seed(1)
    width, length = (128, 48) if quick else (256, 96)  # sizes the zoo does not have
    encoder = Encoder(width, 4 if quick else 8, 2 if quick else 4, length).eval()

    def tokens(seed: int) -> tuple[Any, ...]:
        return (torch.randint(512, (4, length), generator=torch.Generator().manual_seed(seed)),)

    limits = {"max_accuracy_drop": 0.01, "enable_adaptive_hybrid": False, "seed": 0}
    iterations, seconds = (2, 0.3) if quick else (8, 1.5)
    budget = {"max_iterations": iterations, "seconds_per_candidate": seconds}
    core = create_hybrid_optimization_core({**limits, **budget})
    _, result = core.hybrid_optimize_module(encoder, tokens)
    print(core.report(), flush=True)
    metrics = result["performance_metrics"]

    class Idle(nn.Module):
        """Nothing to gain here: one addition."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1.0

    _, kept = create_hybrid_optimization_core({**limits, **budget}).hybrid_optimize_module(Idle(), torch.zeros(4, 4))
    figures = {
        "live_speedup": metrics["speed_improvement"]["value"],
        "live_speedup_low": metrics["speed_improvement"]["low"],
        "live_error": metrics["output_error"],
        "original_kept": float(kept["selected_strategy"] == "original"),
    } | rank_agreement(quick=quick)
    return figures, [
        {"searcher": "live", "strategy": result["selected_strategy"], "evaluations": result["evaluations"]}
    ]


def rank_agreement(*, quick: bool) -> dict[str, float]:
    """Returns Spearman correlations of two measurements of the same candidates: the smallest over modules.

    Of fitness (what candidates are ranked by), and of its noisiest part alone, the speed ratio.
    """
    fit, speed = [], []
    for name, size in (("encoder", 1),) if quick else (("encoder", 1), ("cnn", 1)):
        first, second = _measure_set(name, size, 0, quick=quick), _measure_set(name, size, 10_000, quick=quick)
        weights = weights_of(None)
        fit.append(spearman(fitness(scores(*first.T), weights), fitness(scores(*second.T), weights)))
        speed.append(spearman(first[:, 0], second[:, 0]))
    return {"rank_agreement": min(fit), "rank_agreement_speed": min(speed)}


def _measure_set(name: str, size: int, seed: int, *, quick: bool) -> np.ndarray:
    """Measures a fixed set of candidates of a zoo module anew, each in a child process: ``[n, 3]``."""
    from treegym.optimize import worker, zoo
    from treegym.optimize.candidates import apply, parse
    from treegym.optimize.measure import measure
    from treegym.optimize.measurement import MeasureSettings
    from treegym.optimize.table import load_table

    recorded = load_table()
    index = next(i for i, module in enumerate(recorded.modules) if (module.name, module.size) == (name, size))
    records = np.random.default_rng(0).permutation(recorded.records_of(index)[1:])[: 6 if quick else 12]
    module, sample = zoo.build(name, size), zoo.inputs(name, size, 0)
    settings = MeasureSettings(max_seconds=0.3 if quick else 1.0, max_pairs=200, seed=seed)
    metrics = []
    for record in records:

        def work(candidate: str = recorded.name(int(record))) -> dict[str, Any]:
            optimised = apply(module, parse(candidate), sample)
            return measure(module, optimised, lambda s: zoo.inputs(name, size, s), settings).as_dict()

        outcome = worker.run(work)
        if outcome.result is None:
            raise RuntimeError(f"a recorded candidate could not be measured again: {outcome.reason}")
        metrics.append([outcome.result[part]["value"] for part in ("speed", "memory", "accuracy")])
    return np.array(metrics)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the correlation of ranks."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


if __name__ == "__main__":
    main()
