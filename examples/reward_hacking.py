"""Reward hacking, made visible: the same agent trained on a judge alone, and on the judge behind a verifier.

The bundled judge is a small model and easily impressed. Trained on its score alone, an agent finds answers that the
judge likes and that are wrong; behind `gate` the judge only ranks right answers, and both figures rise together.

Run: python examples/reward_hacking.py [steps] (default 150,000: a few minutes on one core); writes reward_hacking.png
"""

import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np

from treegym.agents import PPO
from treegym.envs.token_tree.world import load_tree
from treegym.rewards import build
from treegym.rewards.source import EOS

REWARDS = {
    "judge alone": {"judge": 1.0},
    "verifier, then judge": {"gate": {"by": "verifier", "then": {"judge": 1.0}}},
}


def judged_tree(folder):
    """Writes the bundled tree with the judge's score of every end, so that training asks no model."""
    tree = load_tree(None)
    ends = np.flatnonzero((tree.flags & EOS) != 0)
    table = build("judge").on(tree)
    table.ensure(ends)  # what `treegym tree score --reward judge --store judge` does
    tree.make_writable()
    tree.column("judge")[ends] = table.terms[ends, 0]
    path = str(Path(folder) / "judged.tree")
    tree.save(path)
    return path


def measure(model, envs, roots):
    """Returns mean judge score and share of right answers over one greedy episode for each root."""
    observation, info = envs.reset(options={"roots": roots})
    score, right, done = np.zeros(len(roots)), np.zeros(len(roots), bool), np.zeros(len(roots), bool)
    while not done.all():
        action, _ = model.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = envs.step(action)
        ending = (terminated | truncated) & ~done
        score[ending] = info["reward_terms"]["judge"]["raw"][ending]
        right[ending] = info["is_success"][ending]
        done |= ending
    return float(score.mean()), float(right.mean())


def main(steps):
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = judged_tree(folder)
        roots = load_tree(tree).roots_in("test").tolist()
        both = {"judge": 1.0, "verifier": 0.0}
        check = gym.make_vec("TokenTree-v0", num_envs=len(roots), tree=tree, split="test", reward=both)
        for name, reward in REWARDS.items():
            envs = gym.make_vec("TokenTree-v0", num_envs=64, tree=tree, reward=reward)
            model = PPO("ChildPolicy", envs, seed=0)
            curves[name] = [(0, *measure(model, check, roots))]
            print(f"\n{name}\n   steps  judge  right\n{0:>8,}  {curves[name][0][1]:.3f}  {curves[name][0][2]:.3f}")
            for _ in range(10):
                model.learn(max(1, steps // 10), reset_num_timesteps=False)
                curves[name].append((model.num_timesteps, *measure(model, check, roots)))
                done, judge, right = curves[name][-1]
                print(f"{done:>8,}  {judge:.3f}  {right:.3f}", flush=True)
    plot(curves)


def plot(curves):
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed, so there is no picture")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(10, 4), sharey=True)
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        steps, judge, right = zip(*points, strict=True)
        axis.plot(steps, judge, label="judge's score")
        axis.plot(steps, right, label="right answers")
        axis.set(title=f"trained on: {name}", xlabel="steps", ylim=(0, 1))
    axes[0].legend()
    figure.tight_layout()
    figure.savefig("reward_hacking.png", dpi=120)
    print("wrote reward_hacking.png")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150_000)
