"""Drafts distilled from their targets: what they keep, what they learn, and that they save passes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.models import load_model
from treegym.models.local.distilling import DistilSettings, distil, divergence, speculation, thinned

CONTEXTS = [[5, 6, 7], [9, 4], [3, 4, 5], [11, 2]]


def test_divergence_by_hand() -> None:
    # KL((1/2, 1/2) || (1/4, 3/4)) = (log 2 + log 2/3) / 2, and 0 of a law to itself: the mean is a quarter of log 4/3
    target = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    draft = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    assert float(divergence(target, draft)) == pytest.approx(math.log(4 / 3) / 4)


@pytest.mark.parametrize(("family", "name"), [("llama", "layers"), ("gpt2", "h"), ("gemma3", "layers")])
def test_a_draft_keeps_layers_from_the_first_to_the_last(family, name, make_model) -> None:
    target = make_model(family, seed=1, layers=5)
    draft = thinned(target, 3)
    ours, theirs = (getattr(network.base_model, name) for network in (draft, target.model))
    assert len(theirs) == 5
    for mine, place in zip(ours, (0, 2, 4), strict=True):  # evenly from layer 0 to layer 4
        for left, right in zip(mine.parameters(), theirs[place].parameters(), strict=True):
            assert torch.equal(left, right)
    assert draft.config.get_text_config().num_hidden_layers == 3


def test_what_is_learned_is_accepted_more_often(make_model) -> None:
    target = make_model("llama", seed=1, layers=3)
    settings = DistilSettings(layers=1, steps=60, batch=8, max_tokens=12, learning_rate=3e-3)
    losses: list[float] = []
    draft = distil(target, CONTEXTS, settings, report=lambda step, loss: losses.append(loss))
    cut = distil(target, CONTEXTS, DistilSettings(layers=1, steps=1, batch=1, learning_rate=1e-12))
    asked = {"max_new_tokens": 16, "temperature": 1.0, "seed": 3, "stop_ids": []}
    told, before = (speculation(model, target, CONTEXTS * 4, **asked) for model in (draft, cut))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert told["acceptance"] > before["acceptance"] + 0.1
    assert told["tokens_per_pass"] > before["tokens_per_pass"]
    again = distil(target, CONTEXTS, settings)
    assert again.fingerprint() == draft.fingerprint()


def test_what_makes_no_draft_is_refused(make_model) -> None:
    target = make_model("llama", seed=1)
    with pytest.raises(ConfigError, match="has 2, and a draft needs 1 to 1"):
        distil(target, CONTEXTS, DistilSettings(layers=2))
    with pytest.raises(ConfigError, match="no prompts came"):
        distil(target, [])
    with pytest.raises(ConfigError, match="steps is 0"):
        DistilSettings(steps=0)


def test_the_command_writes_a_draft_that_growth_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "draft"
    given = ["--prompts", "bundled:train=8,test=4", "--steps", "3", "--batch", "2", "--max-tokens", "8"]
    assert main(["distill", "tiny-primary", "--out", str(out), *given]) == 0
    assert "of its proposals are accepted on held-out prompts" in capsys.readouterr().out
    draft = load_model(str(out))
    assert draft.config.num_hidden_layers == 1
    assert draft.tokenizer.fingerprint() == load_model("tiny-primary").tokenizer.fingerprint()
