"""Completions learned from per CPU-second on one thread, beside TRL's GRPOTrainer with the DAPO loss.

Same weights, prompts, reward, group size, completion length, batch and number of gradient steps, at 108 k and at 800 k
parameters. The two run in processes of their own, in turn, and each tells its own process CPU time; TRL lives in
`.venvs/trl` (`python -m venv .venvs/trl`, then `pip install trl==1.16.0` there, with torch for the CPU).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import emit, parse, peer_absent, table

SIZES = {  # hidden, intermediate, layers
    "108k": (64, 192, 2),
    "800k": (128, 344, 4),
}
GROUP, COMPLETIONS, LENGTH, RATE = 8, 64, 24, 1e-4
PEER = Path(__file__).resolve().parents[1] / ".venvs" / "trl" / "bin" / "python"


def reward_of(text: str) -> float:
    """Returns the share of digits: cheap, dense, and the same for both."""
    return sum(character.isdigit() for character in text) / LENGTH


# ---------------------------------------------------------------- ours


def ours(model: str, prompts: list[str], updates: int) -> dict[str, float]:
    """Learns from about `updates` batches; returns CPU seconds and completions."""
    from stable_baselines3.common.callbacks import BaseCallback

    from treegym.agents import DAPO
    from treegym.envs.free_text import FreeTextVectorEnv
    from treegym.envs.token_tree.tree import Root
    from treegym.models import load_model

    class Count(BaseCallback):
        completions = tokens = rollouts = 0

        def _on_step(self) -> bool:
            return self.rollouts < updates

        def _on_rollout_end(self) -> None:
            rollout = self.locals["rollout"]
            self.completions += rollout.episodes
            self.tokens += rollout.steps
            self.rollouts += 1

    env = FreeTextVectorEnv(
        COMPLETIONS, prompts=[Root(prompt, "", "train") for prompt in prompts], tokenizer=load_model(model).tokenizer,
        verify=lambda root, text: reward_of(text), max_tokens=LENGTH,
    )  # fmt: skip
    agent = DAPO(
        "LMPolicy", env, seed=0, device="cpu", policy_kwargs={"model": model}, learning_rate=RATE, group_size=GROUP,
        n_episodes=COMPLETIONS, n_epochs=1, batch_size=10**9, dynamic_sampling=False,
    )  # fmt: skip
    count = Count()
    before = time.process_time()
    # The callback ends it on the first step of the batch after the last: a sixtieth of a batch too much, ours to bear.
    agent.learn(10**9, callback=count)
    return {
        "cpu": time.process_time() - before,
        "completions": count.completions,
        "tokens": count.tokens / count.completions,
    }


# ---------------------------------------------------------------- TRL


def theirs(model: str, prompts: list[str], updates: int) -> dict[str, float]:
    """The same in TRL: a trainer made before the clock starts, one gradient step for each batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    network = AutoModelForCausalLM.from_pretrained(model)
    lengths: list[int] = []

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        return [reward_of(text) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=COMPLETIONS, num_generations=GROUP, steps_per_generation=1,
            num_iterations=1, max_completion_length=LENGTH, loss_type="dapo", beta=0.0, epsilon_high=0.28,
            learning_rate=RATE, lr_scheduler_type="constant", max_steps=updates, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=network, reward_funcs=reward, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=_tokenizer(model, PreTrainedTokenizerFast),
        )  # fmt: skip
        before = time.process_time()
        trainer.train()
        spent = time.process_time() - before
    return {"cpu": spent, "completions": len(lengths), "tokens": statistics.mean(lengths)}


def _tokenizer(model: str, kind: Any) -> Any:
    """Returns the character vocabulary as `transformers` knows tokenizers."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = json.loads((Path(model) / "tokenizer.json").read_text(encoding="utf-8"))["tokens"]
    inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return kind(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left")


# ---------------------------------------------------------------- side by side


def worker(which: str) -> None:
    """Serves one side: a line with the job comes in, a line with its figures goes out."""
    import torch

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    run = {"ours": ours, "theirs": theirs}[which]
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)


class Side:
    """A contestant in a process of its own."""

    def __init__(self, python: str, which: str, log: Any) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "worker", which], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            cwd=Path(__file__).resolve().parents[1],
        )  # fmt: skip

    def run(self, **job: Any) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended without an answer; its messages are in the log above")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def make_model(size: str, folder: Path) -> tuple[str, int]:
    """Writes a Llama of a size with random weights; returns where and how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from treegym.models import load_model
    from treegym.models.saving import save_model

    hidden, intermediate, layers = SIZES[size]
    torch.manual_seed(0)
    tokenizer: Any = load_model("tiny-primary").tokenizer
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_id, eos_token_id=tokenizer.eos_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    save_model(model, tokenizer, folder / size)
    return str(folder / size), sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2])
        return
    arguments = parse(__doc__ or "")
    found = PEER.is_file() and subprocess.run([PEER, "-c", "import trl"], capture_output=True, check=False)
    if not found or found.returncode:
        peer_absent("TRL", "python -m venv .venvs/trl && .venvs/trl/bin/pip install trl==1.16.0 torch")
    from treegym.models.tasks import problems

    prompts = [problem.prompt for problem in problems("train", 256, seed=5)]
    rounds, updates = (1, 3) if arguments.quick else (5, 20)
    figures: dict[str, float] = {}
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        sides = {"ours": Side(sys.executable, "ours", log), "theirs": Side(str(PEER), "theirs", log)}
        try:
            for size in SIZES:
                model, parameters = make_model(size, Path(folder))
                job = {"model": model, "prompts": prompts}
                for side in sides.values():
                    side.run(**job, updates=1)  # warm-up
                ratios = []
                for _ in range(rounds):
                    mine, peer = (sides[name].run(**job, updates=updates) for name in ("ours", "theirs"))
                    each = {"ours": mine["cpu"] / mine["completions"], "theirs": peer["cpu"] / peer["completions"]}
                    ratios.append(each["theirs"] / each["ours"])
                    cells.append(
                        {
                            "size": size, "parameters": parameters, "ratio": ratios[-1],
                            "ours_per_cpu_s": 1 / each["ours"], "trl_per_cpu_s": 1 / each["theirs"],
                            "ours_tokens": mine["tokens"], "trl_tokens": peer["tokens"],
                        }
                    )  # fmt: skip
                figures[f"vs_trl_{size}"] = statistics.median(ratios)
        except SystemExit:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            for side in sides.values():
                side.close()
    print(table(cells))
    emit("lm_train_speed", figures, cells)


if __name__ == "__main__":
    main()
