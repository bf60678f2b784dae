"""When is a text complete? A cheap filter, then a small model, and a rule of your own; on the bundled tree.

Run: python examples/custom_terminal.py
"""

import numpy as np

from treegym.rewards import build, build_terminal, register_terminal
from treegym.rewards.terminal.detection_report import detection_report
from treegym.tree.opening import load_tree


def two_sentences(path):
    """Ends after the second full stop."""
    return path.text.count(".") >= 2


register_terminal("two_sentences", two_sentences)
tree = load_tree(None)
train = np.isin(tree.root_of(np.arange(tree.size)), tree.roots_in("train")[:40])  # enough to see, soon done

for spec in ("punctuation", "proxy", {"then": ["punctuation", "two_sentences"]}):
    report = detection_report(build_terminal(spec), tree)
    print(f"{spec!s:45} agreement with true ends {report['agreement']:.3f}, asked {report['asked']}")

# A model says whether a text is complete; the filter before it saves most of its calls.
terminal = build_terminal({"any": ["eos", {"then": ["punctuation", {"completeness": {"threshold": 0.9}}]}]})
nodes = np.flatnonzero(train & (tree.depth > 0))
ends = terminal.on(tree, nodes)
filtered, complete = terminal.detector.parts()[1].parts()
print(f"of {len(nodes):,} nodes {ends.sum():,} end a text; the model was asked about {complete.asked:,}")

# Detected ends are scored like real ones: the verifier reads the text where no verdict is stored.
decided = np.zeros(tree.size, bool)
decided[nodes[ends]] = True
table = build({"verifier": 1.0, "length": -0.01}).on(tree, ends=decided)
print(f"right among the detected ends: {(table.terms[nodes[ends], 0] >= 0.5).mean():.3f}")
