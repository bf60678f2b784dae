"""Reward hacking, made visible: the same agent trained on a judge alone, and on the judge behind a verifier.

The bundled judge is a small model and easily impressed. Trained on its score alone, an agent first learns what right
answers look like, and then what the judge likes: its score goes on rising while right answers become fewer. Behind
`gate` the judge only ranks right answers, and both figures rise together.

Run: python examples/reward_hacking.py [steps] (default 60,000: a minute or two); writes reward_hacking.png
"""

import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np

from treegym.agents import PPO
from treegym.tree.editing import select_roots
from treegym.tree.opening import load_tree

PROMPTS = 64  # few enough to be learned by heart, which is where a reward is exploited most
POINTS = 20  # measurements of each run

REWARDS = {
    "judge alone": {"judge": 1.0},
    "verifier, then judge": {"gate": {"by": "verifier", "then": {"judge": 1.0}}},
}


def measure(model, envs):
    """Returns mean judge score and share of right answers over one greedy episode for each prompt."""
    observation, info = envs.reset(options={"roots": list(range(PROMPTS))})
    score, right, done = np.zeros(PROMPTS), np.zeros(PROMPTS, bool), np.zeros(PROMPTS, bool)
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
        tree = str(Path(folder) / "few.tree")
        everything = load_tree(None)  # the judge's score of every answer is stored in it, so training asks no model
        select_roots(everything, everything.roots_in("train")[:PROMPTS]).save(tree)
        both = {"judge": 1.0, "verifier": 0.0}
        check = gym.make_vec("TokenTree-v0", num_envs=PROMPTS, tree=tree, reward=both)
        for name, reward in REWARDS.items():
            envs = gym.make_vec("TokenTree-v0", num_envs=64, tree=tree, reward=reward)
            model = PPO("ChildPolicy", envs, seed=0, learning_rate=5e-3)
            curves[name] = [(0, *measure(model, check))]
            print(f"\n{name}\n   steps  judge  right\n{0:>8,}  {curves[name][0][1]:.3f}  {curves[name][0][2]:.3f}")
            for _ in range(POINTS):
                model.learn(max(1, steps // POINTS), reset_num_timesteps=False)
                curves[name].append((model.num_timesteps, *measure(model, check)))
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
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
