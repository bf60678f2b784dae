"""Two experts made one: each learns another kind of task from the same start, and their merge knows both.

Run it with `python examples/merge_experts.py`; it takes some ten seconds of CPU time and downloads nothing.
"""

import tempfile
from dataclasses import replace

from treegym.envs.token_tree.prompts import load_prompts
from treegym.iterate import evaluate_model
from treegym.iterate.imitate import imitate, written_answers
from treegym.models import load_model
from treegym.models.local.saving import save_model
from treegym.models.merging import MergeSettings, merge

if __name__ == "__main__":
    train, test = load_prompts("bundled:train=2000", seed=1), load_prompts("bundled:test=200", seed=2)
    kinds = ("sorting", "products")
    both = replace(test, roots=[root for root in test.roots if root.kind in kinds])
    with tempfile.TemporaryDirectory() as folder:
        experts = [f"{folder}/{kind}" for kind in kinds]
        for kind, expert in zip(kinds, experts, strict=True):
            model, own = load_model("tiny-primary"), [root for root in train.roots if root.kind == kind]
            answers = written_answers(replace(train, roots=own), model.tokenizer, count=500, max_tokens=24, seed=0)
            imitate(model.model.requires_grad_(True), answers, steps=80, batch=64, learning_rate=1e-3, seed=0)
            save_model(model.model, model.tokenizer, expert)
        whole = merge(experts, f"{folder}/both", settings=MergeSettings("slerp"))
        for name in ("tiny-primary", *experts, str(whole)):
            print(f"{name.removeprefix(folder):<14} {evaluate_model(load_model(name), both)['by_kind']}")
