"""Tree advantages against the truth, at equal sampled tokens: bias, variance, rank correlation, gradient cosine.

Every method draws from the policy of a closed tree until the same number of tokens is spent on a prompt. Its
advantages are held against the exact ones of `tree.values`; its gradient, of the logits of every node that was visited,
against the exact policy gradient. Advantages are compared up to one factor per method (z-scores have a scale of their
own), in units of the exact advantages' root mean square. `--learn` also trains with the switch `advantage`, 5 seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from common import emit, mean_interval, table
from tree_draws import Draw, Sampler, branching, chains, forks, merged, vine

from treegym.agents import tree_advantages as credit_of
from treegym.agents.tree_advantages import ESTIMATORS, Credit
from treegym.tree.opening import load_tree
from treegym.tree.solve import solve
from treegym.tree.token_tree import TokenTree
from treegym.tree.values import Values, reach, renormalised

Method = tuple[Callable[[Sampler, int, int], Draw], Callable[[Draw], Credit]]


def of(name: str) -> Callable[[Draw], Credit]:
    return lambda draw: ESTIMATORS[name](draw.tree)


def vine_credit(draw: Draw) -> Credit:
    assert draw.value is not None
    return credit_of.vine(draw.tree, draw.value)


def whole_chains(s: Sampler, root: int, budget: int) -> Draw:
    return chains(s, root, budget).done()


METHODS: dict[str, Method] = {
    "grpo, chains": (whole_chains, of("grpo")),
    "rloo, chains": (whole_chains, of("rloo")),
    "dapo, chains": (whole_chains, of("dapo")),
    "treepo, chains merged": (merged, of("treepo")),
    "treerl, chains merged": (merged, of("treerl")),
    "spo_tree, chains merged": (merged, of("spo_tree")),
    "treerpo, chains merged": (merged, of("treerpo")),
    "tree_grpo, chains merged": (merged, of("tree_grpo")),
    "vine, K = 3": (vine, vine_credit),
    "rloo, branching": (branching, of("rloo")),
    "treepo, branching": (branching, of("treepo")),
    "treepo_weighted, branching": (branching, of("treepo_weighted")),
    "spo_tree, branching": (branching, of("spo_tree")),
    "treerpo, branching": (branching, of("treerpo")),
    "treerpo_floored, branching": (branching, of("treerpo_floored")),
    "tree_grpo, branching": (branching, of("tree_grpo")),
    "rloo, forks": (forks, of("rloo")),
    "treerl, forks": (forks, of("treerl")),
    "treerl_code, forks": (forks, of("treerl_code")),
    "treepo, forks": (forks, of("treepo")),
}


@dataclass
class Score:
    """What a method said of every edge, over all repetitions."""

    given: dict[int, list[float]] = field(default_factory=dict)  # of each edge: one number per repetition that saw it
    correlation: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def row(self, name: str, exact: np.ndarray) -> dict[str, object]:
        edges = [e for e, seen in self.given.items() if len(seen) > 1]
        mean = np.array([np.mean(self.given[e]) for e in edges])
        spread = np.array([np.var(self.given[e], ddof=1) for e in edges])
        often = np.array([len(self.given[e]) for e in edges], float)
        truth = exact[edges]
        unit = float((often * truth**2).sum() / often.sum())
        scale = float((often * mean * truth).sum() / max((often * mean**2).sum(), 1e-12))
        chance = spread / often  # what the mean over repetitions still varies by is no bias
        bias = max(float((often * ((scale * mean - truth) ** 2 - scale**2 * chance)).sum() / often.sum()), 0.0)
        low, high = mean_interval(self.cosine)
        return {
            "method": name,
            "bias": (bias / unit) ** 0.5,
            "variance": float((often * scale**2 * spread).sum() / often.sum()) / unit,
            "rank correlation": statistics.mean(self.correlation),
            "gradient cosine": statistics.mean(self.cosine),
            "low": low,
            "high": high,
            "tokens": statistics.mean(self.tokens),
        }


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns mean ranks, equal values sharing theirs."""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum()
    return (last - (count - 1) / 2)[index]


def score(
    tree: TokenTree, exact: Values, *, prompts: int, repeats: int, texts: int, seed: int
) -> list[dict[str, object]]:
    """Returns a row per method."""
    rng = np.random.default_rng(seed)
    chance = exact.probability
    s = Sampler(tree, chance, rng)
    values = exact.value[tree.root_node]
    doubtful = np.argsort(-values * (1 - values), kind="stable")[: max(len(values) // 2, prompts)]  # there is to learn
    roots = rng.choice(tree.root_node[doubtful], min(prompts, len(doubtful)), replace=False)
    true_gradient = reach(tree, chance) * exact.advantage  # of the logits: d(u) pi(v|u) A(v)
    length = np.mean([len(s.text(int(r))) for r in roots for _ in range(20)])
    budget = int(texts * length)
    owner = tree.root_node[tree.root_of(np.arange(tree.size))]
    below = {int(root): np.flatnonzero(owner == root) for root in roots}  # the prompt itself comes first
    place = np.zeros(tree.size, np.int64)
    for nodes in below.values():
        place[nodes] = np.arange(len(nodes))
    rows = []
    for name, (draw, credit) in METHODS.items():
        found = Score()
        for root in roots.tolist():
            nodes = below[root]
            truth, above = true_gradient[nodes], place[tree.parent[nodes[1:]]]
            for _ in range(repeats):
                made = draw(s, root, budget)
                given = credit(made)
                size = np.array([len(e) for e in made.edges])
                node = np.concatenate(made.edges)
                advantage, weight = np.repeat(given.advantage, size), np.repeat(given.weight, size)
                found.tokens.append(made.tokens)
                mass = np.bincount(place[node], weight, minlength=len(nodes))
                total = np.bincount(place[node], weight * advantage, minlength=len(nodes))
                seen = np.flatnonzero(mass > 0)
                mean = total[seen] / mass[seen]
                for edge, one in zip(nodes[seen].tolist(), mean.tolist(), strict=True):
                    found.given.setdefault(edge, []).append(one)
                real = exact.advantage[nodes[seen]]
                if len(seen) > 1 and np.ptp(mean) > 0 and np.ptp(real) > 0:
                    found.correlation.append(float(np.corrcoef(ranks(mean), ranks(real))[0, 1]))
                # The gradient of w A log pi(v|u): w A at v less pi times the sum at u.
                at = np.bincount(above, total[1:], minlength=len(nodes))
                gradient = total.copy()
                gradient[1:] -= chance[nodes[1:]] * at[above]
                norm = np.linalg.norm(gradient) * np.linalg.norm(truth)
                found.cosine.append(float(gradient @ truth / norm) if norm else 0.0)
        rows.append(found.row(name, exact.advantage))
    return rows


def able(tree: TokenTree, depth: int, seed: int) -> np.ndarray:
    """Returns a policy ``[N]`` that is right about three times in ten; the primary of synthetic trees hardly is."""
    rng = np.random.default_rng(seed)
    reachable = solve(tree, np.zeros(tree.size)).reachable
    siblings = tree.child_count[np.maximum(tree.parent, 0)].astype(np.float64)
    step = 0.3 ** (1 / depth)
    bonus = np.log(np.maximum(siblings - 1, 0.5) * step / (1 - step))
    return renormalised(tree, rng.normal(size=tree.size) + bonus * reachable)


def learned(seeds: int, steps: int) -> list[dict[str, object]]:
    """Returns the held-out accuracy of DAPO with each advantage, on the bundled world."""
    import gymnasium as gym

    from treegym.agents import DAPO

    rows: list[dict[str, object]] = []
    # TreeRPO's means are SPO-tree's where chains are merged: each edge weighs as often as it was drawn.
    for name in ("normalised", "leave_one_out", "treepo", "treerl", "treerl_code", "spo_tree", "tree_grpo"):
        reached = []
        for seed in range(seeds):
            env = gym.make("TokenTree-v0")
            # groups are judged as the trees they make, from their roots on; what is uninformative is drawn again
            switches = {"exploring_starts": 0.0, "dynamic_sampling": True}
            agent = DAPO("ChildPolicy", env, advantage=name, seed=seed, group_size=16, n_episodes=256, **switches)
            agent.learn(steps)
            held = gym.make_vec("TokenTree-v0", num_envs=400, split="test")
            seen, _ = held.reset(seed=seed, options={"roots": held.unwrapped.world.pool})
            right, over = np.zeros(400), np.zeros(400, bool)
            while not over.all():
                seen, _, ended, cut, info = held.step(agent.predict(seen, deterministic=True)[0])
                right = np.where(over, right, info["is_success"])
                over |= ended | cut
            reached.append(float(right.mean()))
        low, high = mean_interval(reached)
        rows.append({"advantage": name, "held-out": statistics.mean(reached), "low": low, "high": high})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run under a minute; figures are rough")
    parser.add_argument("--learn", action="store_true", help="train with every advantage, too")
    args = parser.parse_args()
    prompts, repeats = (6, 6) if args.quick else (40, 20)
    cells: list[dict[str, object]] = []
    figures: dict[str, float] = {}
    worlds = {
        "bundled": None,
        "depth 6, branching 4": "synthetic:roots=60,depth=6,branching=4,width=6,seed=1",
        "depth 16, branching 3": "synthetic:roots=60,depth=16,branching=3,width=6,seed=1",
        "depth 6, branching 12": "synthetic:roots=60,depth=6,branching=12,width=6,seed=1",
    }
    for world, spec in list(worlds.items())[: 2 if args.quick else 4]:
        tree = load_tree(spec)
        policy = "primary" if spec is None else able(tree, depth=int(world.split()[1].strip(",")), seed=0)
        rows = score(tree, tree.values(policy), prompts=prompts, repeats=repeats, texts=16, seed=0)
        print(f"{world}: 16 texts' tokens per prompt, {prompts} prompts, {repeats} repetitions\n")
        print(table(rows), end="\n\n")
        cells += [{"world": world, **row} for row in rows]
        if world == "bundled":
            by_name = {str(row["method"]): row for row in rows}
            best = max((row for name, row in by_name.items() if not name.startswith(("grpo", "rloo", "dapo"))),
                       key=lambda row: float(str(row["gradient cosine"])))  # fmt: skip
            figures["cosine_dapo"] = float(str(by_name["dapo, chains"]["gradient cosine"]))
            figures["cosine_best_tree"] = float(str(best["gradient cosine"]))
    if args.learn:
        learning = learned(2 if args.quick else 5, 4000 if args.quick else 40_000)
        print(table(learning), end="\n\n")
        cells += learning
        plain = float(str(learning[0]["held-out"]))
        figures["best_credit_vs_dapo"] = max(float(str(row["held-out"])) for row in learning[2:]) - plain
    emit("tree_advantages", figures, cells)


if __name__ == "__main__":
    main()
