"""The two sides of `lm_train_speed.py`, each served by a process of its own: ours, and TRL's GRPOTrainer.

A line with a job comes in, a line with its figures goes out. Both sides get the same weights, prompts, reward, group
size, completion length, batch, learning rate, optimizer settings and number of gradient steps. Under TRL's Python only
`treegym.models.tasks` is imported from here, which needs nothing but NumPy.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sides import serve

GROUP, COMPLETIONS, LENGTH = 8, 64, 24
Problem = tuple[str, str]  # prompt and answer


def digits(text: str, answer: str, ended: bool) -> float:
    """Returns the share of digits of a text that ended: cheap, dense, and the same for both."""
    return sum(character.isdigit() for character in text) / LENGTH if ended else 0.0


def correct(text: str, answer: str, ended: bool) -> float:
    """Returns 1 for a right answer that ended in time."""
    from treegym.models.tasks import is_correct

    return float(ended and is_correct(text, answer))


REWARDS = {"digits": digits, "correct": correct}


# ---------------------------------------------------------------- ours


def ours(
    model: str, problems: list[Problem], updates: int, *, rate: float, reward: str, seed: int, out: str | None
) -> dict[str, float]:
    """Learns from `updates` batches; returns CPU seconds and completions, and writes the model if told where."""
    from counted import Count

    from treegym.agents import DAPO
    from treegym.envs.free_text import FreeTextVectorEnv
    from treegym.models import load_model
    from treegym.tree.token_tree import Root

    score = REWARDS[reward]
    env = FreeTextVectorEnv(
        COMPLETIONS, prompts=[Root(prompt, answer, "train") for prompt, answer in problems],
        tokenizer=load_model(model).tokenizer, verify=lambda root, text: score(text, root.answer, True),
        max_tokens=LENGTH,
    )  # fmt: skip
    agent = DAPO(
        "LMPolicy", env, seed=seed, device="cpu", policy_kwargs={"model": model}, learning_rate=rate, group_size=GROUP,
        n_episodes=COMPLETIONS, n_epochs=1, batch_size=10**9, dynamic_sampling=False, adam_eps=1e-8, max_grad_norm=1.0,
    )  # fmt: skip
    count = Count(updates)
    before = time.process_time()
    # The callback ends it on the first step of the batch after the last: a part of a batch too much, ours to bear.
    agent.learn(10**9, callback=count)
    spent = time.process_time() - before
    if out is not None:
        agent.policy.save_model(out)
    return {"cpu": spent, "completions": count.completions, "tokens": count.tokens / count.completions}


# ---------------------------------------------------------------- TRL


def theirs(
    model: str, problems: list[Problem], updates: int, *, rate: float, reward: str, seed: int, out: str | None
) -> dict[str, float]:
    """The same in TRL: a trainer made before the clock starts, one gradient step for each batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    lengths: list[int] = []
    score = REWARDS[reward]
    end = network.config.eos_token_id

    def judge(completions: list[str], completion_ids: list[list[int]], answer: list[str], **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        told = zip(completions, answer, completion_ids, strict=True)
        return [score(text, reference, bool(ids) and ids[-1] == end) for text, reference, ids in told]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=COMPLETIONS, num_generations=GROUP, steps_per_generation=1,
            num_iterations=1, max_completion_length=LENGTH, loss_type="dapo", beta=0.0, epsilon_high=0.28,
            learning_rate=rate, lr_scheduler_type="constant", max_steps=updates, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, seed=seed, max_grad_norm=1.0,
        )  # fmt: skip
        data = {"prompt": [prompt for prompt, _ in problems], "answer": [answer for _, answer in problems]}
        trainer = GRPOTrainer(
            model=network, reward_funcs=judge, args=config, train_dataset=Dataset.from_dict(data),
            processing_class=_tokenizer(model, PreTrainedTokenizerFast),
        )  # fmt: skip
        before = time.process_time()
        trainer.train()
        spent = time.process_time() - before
    if out is not None:
        network.save_pretrained(out)
        (Path(out) / "tokenizer.json").write_bytes((Path(model) / "tokenizer.json").read_bytes())
    return {"cpu": spent, "completions": len(lengths), "tokens": statistics.mean(lengths)}


def _tokenizer(model: str, kind: Any) -> Any:
    """Returns the character vocabulary as `transformers` knows tokenizers."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = json.loads((Path(model) / "tokenizer.json").read_text(encoding="utf-8"))["tokens"]
    inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return kind(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left")


if __name__ == "__main__":
    serve(ours=ours, theirs=theirs)
