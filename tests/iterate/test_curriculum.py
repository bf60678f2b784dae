"""Rounds that practise on the prompts which the primary answers right now and then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError
from treegym.iterate import IterateSettings, iterate
from treegym.iterate.curriculum import practised_prompts
from treegym.models import load_model

torch.set_num_threads(1)


@pytest.mark.parametrize("how", ["middle", "sample"])
def test_prompts_that_never_succeed_are_hardly_practised(how: str) -> None:
    model, prompts = load_model("tiny-primary"), load_prompts("bundled:train=60", seed=3)
    roots = [replace(root, answer="never") if i % 2 else root for i, root in enumerate(prompts.roots)]
    half = replace(prompts, roots=roots)
    chosen = practised_prompts(half, model, how, max_tokens=24, seed=5)
    hopeless = np.mean([root.answer == "never" for root in chosen.roots])
    assert hopeless < 0.2  # half of what there was
    assert len(chosen.roots) == 30 if how == "middle" else len(chosen.roots) > 60
    assert practised_prompts(half, model, how, max_tokens=24, seed=5).roots == chosen.roots
    assert practised_prompts(half, model, None, max_tokens=24, seed=5) is half


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"ground": "text"}, {"ground": "tree"}])
def test_rounds_run_with_a_curriculum(more: dict[str, Any], tmp_path: Path) -> None:
    settings = IterateSettings(
        algorithm="dapo", curriculum="middle", prompts="bundled:train=16", evaluate="bundled:test=16", rounds=1,
        steps=300, options={"n_episodes": 32, "group_size": 8}, **more,
    )  # fmt: skip
    assert iterate(settings, tmp_path)[1]["prompts"] == 16


def test_curricula_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'middle'"):
        IterateSettings(curriculum="midle")
    with pytest.raises(ConfigError, match="plays every prompt once"):
        IterateSettings(algorithm="expert", curriculum="sample")
