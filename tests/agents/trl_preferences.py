"""TRL's own losses of one batch, by its own trainers: a JSON job comes on standard input, the losses go out.

Run with the interpreter of an environment that has TRL, by `test_preferences.py`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

PLAIN = {"report_to": "none", "use_cpu": True, "bf16": False, "per_device_train_batch_size": 1}


def main() -> None:
    job = json.load(sys.stdin)
    answers, out = sys.stdout, sys.stderr
    sys.stdout = out  # what libraries print is no answer
    texts = Dataset.from_list([{"prompt": "1+", "chosen": "2", "rejected": "3"}])  # trainers want some to begin with
    words = {word: place for place, word in enumerate(["<end>", "1+", "2", "3"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<end>")), eos_token="<end>", pad_token="<end>"
    )

    def model(name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(job[name], dtype=torch.float64).eval()

    found = {}
    for loss, beta in (("dpo", job["beta"]), ("ipo", job["beta"])):
        settings = DPOConfig(
            loss_type="sigmoid" if loss == "dpo" else loss, beta=beta, **PLAIN, output_dir=job["folder"]
        )
        trainer = DPOTrainer(
            model("policy"), model("reference"), settings, train_dataset=texts, processing_class=tokenizer
        )
        trainer.model.eval()
        found[loss] = float(trainer._compute_loss(trainer.model, batch(job["pairs"]), return_outputs=False))
    settings = CPOConfig(
        loss_type="simpo", beta=job["beta"], simpo_gamma=job["margin"], cpo_alpha=0.0, output_dir=job["folder"], **PLAIN
    )
    contestant = CPOTrainer(model("policy"), settings, train_dataset=texts, processing_class=tokenizer)
    rows = batch(job["pairs"])
    with torch.no_grad():
        logits = contestant.model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
    labels = rows["input_ids"].masked_fill(rows["completion_mask"] == 0, -100)
    means = contestant.get_batch_logps(logits, labels, average_log_prob=True)
    found["simpo"] = float(contestant.cpo_loss(*means.chunk(2))[0].mean())
    json.dump(found, answers)


def batch(pairs: list[list[list[int]]]) -> dict[str, torch.Tensor]:
    """Returns pairs of (context, chosen, rejected) as DPOTrainer takes them: preferred answers first."""
    rows = [(context, chosen) for context, chosen, _ in pairs] + [(context, other) for context, _, other in pairs]
    width = max(len(context) + len(answer) for context, answer in rows)
    made = {
        name: torch.zeros(len(rows), width, dtype=torch.long)
        for name in ("input_ids", "attention_mask", "completion_mask")
    }
    for row, (context, answer) in enumerate(rows):
        end = len(context) + len(answer)
        made["input_ids"][row, :end] = torch.tensor([*context, *answer])
        made["attention_mask"][row, :end] = 1
        made["completion_mask"][row, len(context) : end] = 1
    return made


if __name__ == "__main__":
    main()
