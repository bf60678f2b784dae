"""Learning from preferences: right answers over wrong ones, and the better over the worse child of a tree's nodes.

Run it with `python examples/preferences.py`; it takes some ten seconds of CPU time and downloads nothing.
"""

from __future__ import annotations

import tempfile

import torch

from treegym.iterate import IterateSettings, iterate

if __name__ == "__main__":
    torch.set_num_threads(1)
    held_out = "bundled:validation=100"
    runs = {
        "DPO, whole answers": IterateSettings(algorithm="dpo", rounds=1, steps=20_000, evaluate=held_out),
        "SimPO, whole answers": IterateSettings(algorithm="simpo", rounds=1, steps=20_000, evaluate=held_out),
        # sixteen answers of the primary to each prompt make a closed tree, in which every child's value is exact
        "DPO, siblings": IterateSettings(algorithm="dpo", rounds=1, ground="tree", grow=True, growth="samples",
                                         prompts="bundled:train=150", evaluate=held_out),
    }  # fmt: skip
    for name, settings in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            before, after = iterate(settings, folder)
        print(f"{name:<22} {before['accuracy']:.2f} -> {after['accuracy']:.2f}")
