"""Grows a tree with models of your own: anything that honours the LanguageModel protocol, here a wrapper."""

import tempfile
from pathlib import Path

import numpy as np

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.models.loading import load_model
from treegym.tree.token_tree import Root


class Sharpened:
    """Wraps a model and makes it surer of itself; what it does not override goes to the wrapped model."""

    def __init__(self, model, sharpness):
        self.model, self.sharpness, self.name = model, sharpness, f"sharpened-{model.name}"

    def __getattr__(self, name):
        return getattr(self.model, name)

    def next_logprobs(self, contexts):
        logits = self.sharpness * self.model.next_logprobs(contexts)
        return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)

    def fingerprint(self):
        return f"{self.model.fingerprint()}-x{self.sharpness}"


primary = load_model("tiny-primary")
teachers = [Sharpened(load_model("tiny-llama"), 2.0), load_model("tiny-gpt2")]
contexts = [primary.tokenizer.encode("61-48+8=")]
tree = grow(
    [Root("61-48+8=", answer="21", split="test")],
    primary=primary,
    teachers=teachers,
    out=Path(tempfile.mkdtemp()) / "own.tree",
    settings=GrowSettings(max_tokens=24, max_nodes=60),
    progress=False,
)
print(f"{tree.size} nodes; teachers: {', '.join(tree.teachers)}")
print(
    f"surest next token: plain {np.exp(teachers[1].next_logprobs(contexts).max()):.2f}, "
    f"sharpened {np.exp(teachers[0].next_logprobs(contexts).max()):.2f}"
)
