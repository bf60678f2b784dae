"""Preferences that a model makes: two answers to every prompt, compared by the bundled judge (RLAIF).

The command does the same: treegym data preferences --prompts bundled:train=40 --out pairs.jsonl
"""

import tempfile
from collections import Counter
from pathlib import Path

from treegym.envs.token_tree.prompts import load_prompts
from treegym.models import load_model
from treegym.rewards.judge.term import Judge
from treegym.rewards.learned.preference import read_pairs
from treegym.synthesis import Writer, preferences
from treegym.synthesis.writer import Output

out = Path(tempfile.mkdtemp()) / "pairs.jsonl"
prompts = load_prompts("bundled:train=40")
with Output(out) as output:  # what was finished is found again after a kill
    writer = Writer(load_model("tiny-primary"), output.journal, max_tokens=24)
    pairs, apart = preferences(prompts.roots, writer, Judge(), temperatures=(0.3, 1.0), pairwise=False)
    output.finish(pairs, apart=apart)
by_prompt = {root.prompt: root for root in prompts.roots}
right = sum(prompts.verify(by_prompt[pair.prompt], pair.chosen) for pair in read_pairs(out))
print(f"{len(pairs)} pairs, in {right:.0f} of them what was chosen is right; {writer.costs}")
print(f"kept apart: {dict(Counter(row['why'] for row in apart))}")
