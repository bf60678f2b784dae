"""The two sides of `real_training.py`, each a process of its own: ours, and TRL's GRPOTrainer, on a pretrained model.

A line with a job comes in, a line with its figures goes out. Both sides get the same weights in the same precision, the
same prompts, reward, group size, completion length, sampling temperature, learning rate and number of gradient steps,
and learn all weights, or adapters of the same rank at the same layers. TRL's side imports nothing of TreeGym.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

from sides import serve

GROUP, COMPLETIONS, LENGTH, RATE = 8, 32, 26, 1e-6


def judged(text: str) -> float:
    """Returns the share of digits: cheap, dense, and the same for both."""
    return sum(character.isdigit() for character in text) / max(len(text), 1)


def ours(model: str, prompts: list[str], updates: int, dtype: str, rank: int | None) -> dict[str, float]:
    """Learns from `updates` batches by DAPO; returns CPU seconds, completions and their mean length."""
    from counted import Count

    from treegym.agents import DAPO
    from treegym.envs.free_text import FreeTextVectorEnv
    from treegym.models import load_model
    from treegym.tree.token_tree import Root

    env = FreeTextVectorEnv(
        COMPLETIONS, prompts=[Root(prompt, "", "train") for prompt in prompts], tokenizer=load_model(model).tokenizer,
        verify=lambda root, text: judged(text), max_tokens=LENGTH, cut_counts=True,
    )  # fmt: skip
    agent = DAPO(
        "LMPolicy", env, seed=0, device="cpu", policy_kwargs={"model": model, "dtype": dtype, "lora_rank": rank},
        learning_rate=RATE, group_size=GROUP, n_episodes=COMPLETIONS, n_epochs=1, batch_size=10**9,
        dynamic_sampling=False, adam_eps=1e-8, max_grad_norm=1.0,
    )  # fmt: skip
    count = Count(updates)
    before = time.process_time()
    # The callback ends it on the first step of the batch after the last: a part of a batch too much, ours to bear.
    agent.learn(10**9, callback=count)
    spent = time.process_time() - before
    return {"cpu": spent, "completions": count.completions, "tokens": count.tokens / count.completions}


def theirs(model: str, prompts: list[str], updates: int, dtype: str, rank: int | None) -> dict[str, float]:
    """The same in TRL: a trainer made before the clock starts, one gradient step for each batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    network = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    lengths: list[int] = []

    def judge(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        return [judged(text) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=COMPLETIONS, num_generations=GROUP, steps_per_generation=1,
            num_iterations=1, max_completion_length=LENGTH, loss_type="dapo", beta=0.0, epsilon_high=0.28,
            learning_rate=RATE, lr_scheduler_type="constant", max_steps=updates, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, seed=0, max_grad_norm=1.0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=network, reward_funcs=judge, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer, peft_config=_adapters(rank),
        )  # fmt: skip
        before = time.process_time()
        trainer.train()
        spent = time.process_time() - before
    return {"cpu": spent, "completions": len(lengths), "tokens": statistics.mean(lengths)}


def _adapters(rank: int | None) -> Any:
    if rank is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


if __name__ == "__main__":
    serve(ours=ours, theirs=theirs)
