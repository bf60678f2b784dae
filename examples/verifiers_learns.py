"""A round of rejection sampling through verifiers: `vf-eval` samples and scores, what was right is imitated.

Needs verifiers. Takes minutes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

if find_spec("verifiers") is None or shutil.which("vf-eval", path=Path(sys.executable).parent) is None:
    print('verifiers is not installed: pip install "treegym[verifiers]"', file=sys.stderr)
    sys.exit(3)

import torch

from treegym.envs.token_tree.prompts import load_prompts
from treegym.integrations.verifiers_package import write_package
from treegym.iterate.evaluate import evaluate_model
from treegym.iterate.imitate import imitate
from treegym.models import load_model
from treegym.models.serving.server import running_server

PROMPTS = 60 if os.environ.get("TREEGYM_EXAMPLE_QUICK") else 300


def sampled(model, folder: Path) -> list[tuple[str, str, float]]:
    """Returns four answers to each prompt, with what verifiers' rubric, our verifier, gave them."""
    write_package(folder / "some_sums", f"bundled:train={PROMPTS}")
    with running_server(model) as served:
        asked = [
            *("some_sums", "-n", str(PROMPTS), "-r", "4", "-m", "tiny-primary", "--client.base-url", served.url),
            *("--no-push", "--no-rich", "--client.api-key-var", "NONE", "--env.agent.runtime.type", "subprocess"),
            *("--sampling.max-tokens", "24", "--sampling.temperature", "1", "-o", str(folder / "out")),
        ]
        subprocess.run(
            [Path(sys.executable).parent / "vf-eval", *asked], check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "some_sums"), *sys.path])},
        )  # fmt: skip
    [traces] = (folder / "out").glob("*/traces.jsonl")
    episodes = [json.loads(line) for line in traces.read_text(encoding="utf-8").splitlines()]
    return [
        (one["task"]["data"]["prompt"], trace["nodes"][-1]["message"]["content"], trace["rewards"]["treegym"]["score"])
        for one in episodes
        for trace in one["traces"]
        if trace["ok"]
    ]


def main() -> tuple[float, float]:
    """Returns held-out accuracy before and after."""
    torch.set_num_threads(1)
    model, held_out = load_model("tiny-primary", device="cpu"), load_prompts("bundled:test=200", seed=7)
    before = evaluate_model(model, held_out)["accuracy"]
    with tempfile.TemporaryDirectory() as folder:
        answers = sampled(model, Path(folder))
    encode, eos = model.tokenizer.encode, model.tokenizer.eos_id
    right = [(encode(prompt), [*encode(text), eos]) for prompt, text, score in answers if score >= 1.0]
    print(f"{len(right)} of {len(answers)} answers were right")
    imitate(model.model, right, steps=4 * len(right) // 64, batch=64, learning_rate=1e-3, seed=0)
    return before, evaluate_model(model, held_out)["accuracy"]


if __name__ == "__main__":
    before, after = main()
    print(f"held-out accuracy: {before:.3f} before, {after:.3f} after")
    sys.exit(0 if after > before else 1)
