"""Grows a tree for prompts of your own with the bundled tiny models, then looks at what can be reached in it."""

import json
import tempfile
from pathlib import Path

import numpy as np

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.prompts import load_prompts
from treegym.envs.token_tree.world import TreeWorld
from treegym.models.family.bundled import BUNDLED_TEACHERS
from treegym.models.loading import load_model

folder = Path(tempfile.mkdtemp())
# One JSON object per line; a reference answer lets the verifier judge. The bundled models know sums like these.
prompts = [{"prompt": "61-48+8=", "answer": "21"}, {"prompt": "25+31-14=", "answer": "42"}]
(folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))

loaded = load_prompts(str(folder / "prompts.jsonl"))
tree = grow(
    loaded.roots,
    primary=load_model("tiny-primary"),
    teachers=[load_model(name) for name in BUNDLED_TEACHERS],
    out=folder / "mine.tree",
    settings=GrowSettings(max_tokens=24, max_nodes=80),
    verify=loaded.verify,
    progress=False,
)
solution = TreeWorld(tree, split="all", max_tokens=24).solution(1.0)
for r, root in enumerate(tree.roots):
    ends = [n for n in np.flatnonzero(tree.verdict >= 0.5) if tree.root_of(n)[0] == r]
    texts = sorted({tree.text(int(node)) for node in ends}, key=len)
    print(
        f"{root.prompt!r}: {len(texts)} correct answers, the shortest {texts[0]!r}"
        if texts
        else f"{root.prompt!r}: none"
    )
    assert bool(texts) == bool(solution.reachable[tree.root_node[r]])
