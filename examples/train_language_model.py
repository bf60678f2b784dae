"""A language model learns by reward alone: PPO on text of its own, then answers held-out prompts greedily.

Run it with `python examples/train_language_model.py`; it takes about half a minute of CPU time and downloads nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from treegym.agents import PPO
from treegym.envs.free_text import FreeTextVectorEnv
from treegym.envs.token_tree.prompts import load_prompts
from treegym.iterate import evaluate_model
from treegym.models import load_model


def main() -> None:
    """Trains the bundled primary for some 20,000 tokens and compares before with after."""
    torch.set_num_threads(1)
    model = load_model("tiny-primary")
    held_out = load_prompts("bundled:test=200", seed=7)
    before = evaluate_model(model, held_out)

    prompts = load_prompts("bundled:train=2000", seed=1)
    env = FreeTextVectorEnv(256, prompts=prompts.roots, tokenizer=model.tokenizer, verify=prompts.verify)
    agent = PPO(
        "LMPolicy", env, policy_kwargs={"model": "tiny-primary"}, seed=0, device="cpu",
        gamma=1.0, learning_rate=3e-4, n_episodes=256, n_epochs=2, batch_size=1024,
    )  # fmt: skip
    agent.learn(20_000)

    with tempfile.TemporaryDirectory() as folder:
        agent.policy.save_model(Path(folder) / "model")  # a directory that transformers and load_model both read
        after = evaluate_model(load_model(str(Path(folder) / "model")), held_out)
    print(f"{'kind':>10} {'before':>8} {'after':>8}")
    for kind, accuracy in before["by_kind"].items():
        print(f"{kind:>10} {accuracy:>8.2f} {after['by_kind'][kind]:>8.2f}")
    print(f"{'all':>10} {before['accuracy']:>8.2f} {after['accuracy']:>8.2f}")


if __name__ == "__main__":
    main()
