"""Answers criticised and revised by a constitution, with a pretrained model (`make real` brings SmolLM2).

The command does the same: treegym data constitution --principles FILE --prompts FILE --model smollm2 --out OUT
"""

import sys
import tempfile
from pathlib import Path

from treegym.errors import TreeGymError
from treegym.models import load_model
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.synthesis import Writer, constitution
from treegym.synthesis.constitution import read_principles
from treegym.tree.roots import Root

try:
    model = load_model("smollm2")
except TreeGymError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
principles = Path(tempfile.mkdtemp()) / "principles.txt"
principles.write_text("The answer is one short sentence.\n")
writer = Writer(model, form=PromptFormat("chat", system=None), max_tokens=60)
questions = ["Why is the sky blue?", "How do plants drink?", "What is a whale?"]
pairs, apart = constitution([Root(text, "") for text in questions], writer, read_principles(principles))
for pair in pairs:
    print(f"{pair['prompt']}\n  first: {pair['rejected']!r}\n  revised: {pair['chosen']!r}")
print(f"{len(pairs)} pairs, {len(apart)} kept apart; {writer.costs}")
