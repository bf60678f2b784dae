"""TRL's GRPOTrainer with our prompts and our reward, then with walks of the bundled tree. Takes minutes."""

import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
warnings.filterwarnings("ignore")
try:
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    print(f"TRL is not installed: {error}", file=sys.stderr)
    sys.exit(3)

import treegym.models  # noqa: E402 (after the absence of TRL was explained)
from treegym.integrations import trl as door  # noqa: E402

MODEL = str(Path(treegym.models.__file__).parent / "data" / "tiny-primary")
UPDATES = 6 if os.environ.get("TREEGYM_EXAMPLE_QUICK") else 60


def train(dataset, reward_function, **more):
    """Trains the bundled primary and returns the mean reward of its first and of its last updates."""
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=64, num_generations=8, max_completion_length=24,
            max_steps=UPDATES, learning_rate=1e-3, beta=0.0, use_cpu=True, bf16=False, gradient_checkpointing=False,
            report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32"), args=settings, train_dataset=dataset,
            reward_funcs=reward_function, processing_class=door.tokenizer(MODEL), **more,
        )  # fmt: skip
        trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    tenth = max(1, len(rewards) // 10)
    return sum(rewards[:tenth]) / tenth, sum(rewards[-tenth:]) / tenth


if __name__ == "__main__":
    before, after = train(door.prompt_dataset("bundled:train=200"), door.reward({"verifier": 1.0}))
    print(f"free text: mean reward {before:.3f} in the first updates, {after:.3f} in the last")
    before, after = train(
        door.tree_dataset(split="train"), door.tree_reward, rollout_func=door.TreeRollouts(max_tokens=24)
    )
    print(f"walks of the tree: mean reward {before:.3f} in the first updates, {after:.3f} in the last")
