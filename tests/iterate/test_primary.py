"""Adapters from round to round, prompts put and judged as the settings say, and memory that would not do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from treegym.commands.iterate import configure
from treegym.errors import BackendError, ConfigError, DataError
from treegym.iterate import IterateSettings, iterate
from treegym.iterate import checks as iterate_checks
from treegym.iterate.evaluate import prompts_of_round
from treegym.iterate.primary import learnable, open_primary, source_of
from treegym.models import load_model
from treegym.models.local import memory

torch.set_num_threads(1)


def _settings(**changes: Any) -> IterateSettings:
    usual: dict[str, Any] = {
        "algorithm": "ppo", "rounds": 1, "steps": 300, "prompts": "bundled:train=20", "evaluate": "bundled:test=10",
        "options": {"n_episodes": 32}, "learning_rate": 1e-2,
    }  # fmt: skip
    return IterateSettings(**usual | changes)


def test_adapters_go_on_beside_the_first_model(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    settings = _settings(rounds=2, policy={"lora_rank": 2})
    iterate(settings, tmp_path)
    source = source_of(settings, tmp_path / "round-001")
    assert source.model == "tiny-primary"
    assert source.adapters == str(tmp_path / "round-001" / "adapters")
    _, network = open_primary(settings, source)
    assert network is learnable(settings, network)
    learned = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert learned
    assert all("lora_" in name for name in learned)
    joined = load_model(str(tmp_path / "round-001" / "model"))
    found, _ = open_primary(settings, source)
    contexts = [joined.tokenizer.encode("12+34=")]
    torch.testing.assert_close(
        torch.from_numpy(found.next_logprobs(contexts)), torch.from_numpy(joined.next_logprobs(contexts)),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    iterate(_settings(policy={"lora_rank": 2}), tmp_path)
    folder = tmp_path / "round-001" / "adapters"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": "two"}))
    with pytest.raises(DataError, match="no settings of adapters"):
        open_primary(_settings(), source_of(_settings(), tmp_path / "round-001"))


def test_prompts_are_put_and_judged_as_the_settings_say(tmp_path: Path) -> None:
    """A model that was taught to answer "63+15%5=" is asked without the sign, which a template adds."""
    rows = [{"prompt": "63+15%5", "answer": "3"}, {"prompt": "11+27-5", "answer": "33"}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []
    for template in ("{prompt}", "{prompt}="):
        changes = {"prompts": str(file), "evaluate": str(file), "format": "raw", "template": template, "stops": ["#"]}
        found = iterate(_settings(extract="last-number", **changes), tmp_path / str(len(seen)))
        seen.append(found[0]["accuracy"])
    assert seen[0] < seen[1] == 1.0  # with the sign it writes 63+15=78.78-75=3 and 11+27=38.38-5=33


def test_rounds_before_the_last_may_answer_fewer_prompts(tmp_path: Path) -> None:
    rows = iterate(_settings(rounds=2, evaluate_between=4), tmp_path)
    assert [row["prompts"] for row in rows] == [10, 4, 10]


def test_rounds_may_draw_some_of_the_prompts_anew() -> None:
    drawn = [[root.prompt for root in prompts_of_round(_settings(prompts_each=5), seed).roots] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5
    assert drawn[0] != drawn[2]


def test_flags_say_how_prompts_are_put() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    configure(parser)
    given = ["--format", "raw", "--template", r"Q: {prompt}\nA:", "--stop", r"\n", "--stop", "#", "--cut-counts"]
    args = parser.parse_args(given)
    assert args.template == "Q: {prompt}\nA:"
    assert args.stops == ["\n", "#"]
    assert args.cut_counts is True


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": "few-shot"}, "few-shot prompts need examples"),
        ({"format": "rwa"}, "rwa"),
        ({"template": "no place"}, "must hold {prompt}"),
        ({"extract": "last"}, "there is no way to extract answers called 'last'"),
        ({"format": "chat"}, "base model without a chat template"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        iterate(_settings(**changes), tmp_path)


def test_too_little_memory_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000)
    monkeypatch.setattr(iterate_checks, "check_sources", lambda settings: None)
    # 96,129 weights of 4 bytes, and 14 bytes each beside them: 1.7 MB
    with pytest.raises(BackendError, match="training tiny-primary by all its weights takes about"):
        iterate(_settings(), tmp_path)
