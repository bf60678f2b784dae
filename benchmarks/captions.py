"""A model that sees, on `bundled:captions`: does the picture's term tell captions apart, and does PPO improve it?

The term (`image_text`) compares every end of the test prompts with its picture: the area under the curve of right
against wrong ends. The captioner then learns by PPO on the training prompts, from that term alone: no verdict and no
reference caption. It is evaluated by itself, without a tree, on pictures that are drawn anew of held-out scenes.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from common import emit, mean_interval, parse, table

from treegym.agents import PPO
from treegym.envs.token_tree.prompts import load_prompts
from treegym.iterate.evaluate import evaluate_model
from treegym.models import load_model
from treegym.rewards.base import Request
from treegym.rewards.terms.image_text import ImageText
from treegym.tree.opening import load_tree

TREE, MODEL = "bundled:captions", "tiny-captioner"
STEPS, HELD_OUT = 40_000, 300


def area(right: np.ndarray, wrong: np.ndarray) -> float:
    """Returns the share of pairs in which the right one scores higher, ties counting half."""
    below = np.searchsorted(np.sort(wrong), right, side="left") + np.searchsorted(np.sort(wrong), right, side="right")
    return float(below.mean() / (2 * len(wrong)))


def told_apart(split: str = "test") -> dict[str, Any]:
    """Returns the areas under the curve over all ends of a split, and as a mean over its prompts."""
    tree = load_tree(TREE)
    ends = np.flatnonzero(~np.isnan(tree.verdict))
    roots = tree.root_of(ends)
    ends = ends[np.isin(roots, tree.roots_in(split))]
    roots, right = tree.root_of(ends), tree.verdict[ends] >= 0.5
    values = ImageText().values(tree, Request(ends, np.ones(len(ends), bool), np.zeros(len(ends), bool)))
    each = [
        area(values[here & right], values[here & ~right])
        for here in (roots == root for root in np.unique(roots))
        if (here & right).any() and (here & ~right).any()
    ]
    return {
        "right": int(right.sum()),
        "wrong": int((~right).sum()),
        "auc": area(values[right], values[~right]),
        "auc_within_prompts": float(np.mean(each)),
    }


def learned(seed: int, steps: int) -> dict[str, Any]:
    """Returns held-out accuracy before and after PPO on the tree, paid by the picture's term alone."""
    held_out = load_prompts(f"captions:test={HELD_OUT}", seed=1000 + seed)
    model = load_model(MODEL)
    before = evaluate_model(model, held_out, max_tokens=12)["accuracy"]
    env = gym.make_vec(
        "TokenTree-v0", num_envs=64, tree=TREE, view="tokens", split="train", max_tokens=12,
        reward={"image_text": {"weight": 1.0}},
    )  # fmt: skip
    agent = PPO(
        "LMPolicy", env, policy_kwargs={"model": MODEL, "anchor": 0.3}, seed=seed, device="cpu", gamma=1.0,
        learning_rate=5e-4, n_episodes=128, n_epochs=2, batch_size=512,
    )  # fmt: skip
    agent.learn(steps, log_interval=0)
    model.model.load_state_dict(agent.policy.lm.state_dict())
    return {"seed": seed, "before": before, "after": evaluate_model(model, held_out, max_tokens=12)["accuracy"]}


def main() -> None:
    """Prints one JSON line."""
    args = parse(__doc__)
    torch.set_num_threads(1)
    rows = [learned(seed, 1_000 if args.quick else STEPS) for seed in range(1 if args.quick else 5)]
    figures: dict[str, Any] = {"term": told_apart(), "steps": STEPS, "seeds": rows}
    for name in ("before", "after"):
        figures[name] = mean_interval([row[name] for row in rows])
    figures["gain"] = mean_interval([row["after"] - row["before"] for row in rows])
    print(table(rows))
    emit("captions", figures)


if __name__ == "__main__":
    main()
