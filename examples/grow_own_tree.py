"""Grow a token tree from your own prompts with the bundled models, look at it, and walk it as an environment.

Run it from anywhere: `python grow_own_tree.py`. Give model directories or hub names in place of the bundled names, and
the same lines grow a tree with Qwen, Llama, Gemma or DeepSeek.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import gymnasium as gym

import treegym  # noqa: F401  (registers the environments)
from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.prompts import load_prompts
from treegym.models import load_model

QUESTIONS = [
    {"prompt": "12+30-5=", "answer": 37},
    {"prompt": "24*7=", "answer": 168},
    {"prompt": "98-41+6=", "answer": 63},
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        questions, out = Path(folder) / "questions.jsonl", Path(folder) / "mine.tree"
        questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
        prompts = load_prompts(str(questions))
        tree = grow(
            prompts.roots,
            primary=load_model("tiny-primary"),
            teachers=[load_model("tiny-llama"), load_model("tiny-gemma")],
            out=out,
            settings=GrowSettings(max_tokens=24, max_nodes=120),
            verify=prompts.verify,
        )
        print(tree)
        for root, node in enumerate(tree.root_node):
            firsts = ", ".join(
                f"{tree.text(child)!r} {tree.prior[child]:.2f} by {int(tree.proposers[child]):b}"
                for child in tree.children(int(node))
            )
            print(f"{tree.prompts[root]:10} first tokens (log-probability, who proposed): {firsts}")
        env = gym.make("TokenTree-v0", tree=str(out))
        _, info = env.reset(seed=0)
        ended = False
        while not ended:
            action = env.action_space.sample(info["action_mask"])
            _, _, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
        print(f"a random walk wrote {info['text']!r}: {'right' if info['is_success'] else 'wrong'}")
        env.close()


if __name__ == "__main__":
    main()
