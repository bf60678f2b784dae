"""Training a teacher of English: low-rank adapters on a pretrained model, for some kinds of questions only.

The teachers of a tree are worth asking side by side only if each knows what others do not. The pretrained ones know
facts and can hardly add; those trained here are taught to add or to compare, and forget some facts over it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from treegym.errors import require
from treegym.models.english.kinds import Question
from treegym.models.english.questions import practice
from treegym.models.loading import load_model
from treegym.models.local.saving import save_model
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.prompt_format import PromptFormat

__all__ = ["RECIPE", "train_teacher"]

RANK = 16
RATE = 1e-3
STEPS = 100
BATCH = 16
WARM_UP = 10
RECIPE = {"rank": RANK, "rate": RATE, "steps": STEPS, "batch": BATCH, "warm_up": WARM_UP}
IGNORED = -100  # label of what is not to be learned

Progress = Callable[[int, float], None]  # step, loss


def train_teacher(
    out: str | os.PathLike[str],
    *,
    base: str,
    form: PromptFormat,
    kinds: Sequence[str],
    seed: int = 0,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Path:
    """Trains adapters on some kinds of questions, adds them to the weights and writes the model to a directory.

    Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685) on every linear layer; AdamW with a linear
    warm-up and decay; the loss is the mean over the tokens of the answers, their end among them.
    """
    peft = require("peft", extra="lora", purpose="training a teacher of English")
    torch.manual_seed(seed)
    model = load_model(base, device="cpu")
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(model.model, config).train()
    learned = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.0)
    stream = practice(kinds, seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1.0 - step / steps)
        loss = _loss(tuned, model, form, list(itertools.islice(stream, BATCH)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    save_model(tuned.merge_and_unload().eval(), model.tokenizer, out)
    return Path(out)


def _loss(
    tuned: torch.nn.Module, model: TransformersModel, form: PromptFormat, batch: Sequence[Question]
) -> torch.Tensor:
    """Returns the mean negative log-likelihood of the answers' tokens."""
    begin = form.begin(model)
    rows = []
    for question in batch:
        before = begin(question.prompt)
        after = [*model.tokenizer.encode(form.between + question.sentence), model.tokenizer.eos_id]
        rows.append((before, after))
    longest = max(len(before) + len(after) for before, after in rows)
    ids = torch.full((len(rows), longest), model.tokenizer.pad_id)  # [B, T]
    labels = torch.full((len(rows), longest), IGNORED)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for row, (before, after) in enumerate(rows):
        length = len(before) + len(after)
        ids[row, :length] = torch.tensor([*before, *after])
        labels[row, len(before) : length] = torch.tensor(after)
        mask[row, :length] = 1
    trunk = tuned.get_base_model()  # type: ignore[operator]
    hidden = trunk.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != IGNORED  # logits are made where something is learned, not for prompts and padding
    logits = trunk.get_output_embeddings()(hidden[learned]).float()
    return torch.nn.functional.cross_entropy(logits, wanted[learned])
