"""Rounds in which nothing is learned say so, and the reference answers of free text are the run's own."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import treegym.iterate.loop as loop
from treegym.__main__ import main
from treegym.commands.iterate import _print_row
from treegym.envs.token_tree.prompts import load_prompts
from treegym.iterate import IterateSettings, iterate
from treegym.iterate.imitate import Example, written_answers
from treegym.models import load_model

torch.set_num_threads(1)
GOOD = [("61-48+8=", "21"), ("9-2=", "7"), ("2+3=", "5")]


def _told(examples: list[Example], tokenizer: Any) -> dict[str, str]:
    """Returns prompts and answers as texts; the first prompt's answer may be worked in either form."""
    told = {tokenizer.decode(asked): tokenizer.decode(said[:-1]) for asked, said in examples}
    assert {said[-1] for _, said in examples} == {tokenizer.eos_id}
    assert told["61-48+8="] in ("13.21.", "61-48=13.13+8=21.")
    return {**told, "61-48+8=": "21"}


def _jsonl(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("\n".join(json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in rows))
    return str(path)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model whose vocabulary is in another order than the bundled family's, and larger."""
    folder = tmp_path_factory.mktemp("models") / "foreign"
    words = ["</s>", "<unk>", *(chr(code) for code in range(0x7E, 0x1F, -1))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=0, pad_token_id=0,
            )
        ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def test_written_answers_are_in_the_models_own_tokens(tmp_path: Path, foreign: str) -> None:
    tokenizer = load_model(foreign).tokenizer
    prompts = load_prompts(_jsonl(tmp_path / "p.jsonl", [*GOOD, ("1=", "\u00e9"), ("2=", "9" * 30)]))
    examples = written_answers(prompts, tokenizer, count=9, max_tokens=24, seed=0)
    assert _told(examples, tokenizer) == dict(GOOD)
    assert len(written_answers(prompts, tokenizer, count=2, max_tokens=24, seed=0)) <= 2


def test_a_fall_on_text_brings_in_the_runs_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = _jsonl(tmp_path / "good.jsonl", GOOD)
    settings = IterateSettings(
        algorithm="ppo", rounds=1, steps=60, model="tiny-primary", prompts=good, evaluate=good,
        options={"n_episodes": 8},
    )  # fmt: skip
    out = tmp_path / "run"
    seen: list[list[Example]] = []
    monkeypatch.setattr(loop, "_imitate", lambda settings, model, examples, seed: seen.append(examples))
    monkeypatch.setattr(loop, "tree_of_round", lambda *_: pytest.fail("a tree was opened for free text"))
    start = {"round": 0, "reward": 2.0}  # more than can be earned
    (out / "round-000").mkdir(parents=True)
    (out / "round-000" / "row.json").write_text(json.dumps(start))
    row = iterate(settings, out)[1]
    tokenizer = load_model("tiny-primary").tokenizer
    [examples] = seen
    assert _told(examples, tokenizer) == dict(GOOD)
    assert row["reference_share"] > 0
    assert "note" not in row


def test_dapo_without_a_mixed_group_has_no_reward_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = _jsonl(tmp_path / "wrong.jsonl", [(f"{number}+3=", "777") for number in range(10, 18)])
    (tmp_path / "run.toml").write_text("[options]\nn_episodes = 16\ngroup_size = 4\n")
    out = tmp_path / "run"
    words = ["iterate", "--out", str(out), "--config", str(tmp_path / "run.toml"), "--rounds", "1", "--steps", "100"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert main([*words, "--prompts", wrong, "--evaluate", wrong, "--json"]) == 0
    said = capsys.readouterr()
    row = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["rounds"][1]
    assert row["reward"] is None
    assert "no group had mixed outcomes: nothing was learned in this round" in row["note"]
    assert "NaN" not in (out / "round-001" / "row.json").read_text()
    _print_row(row)
    said = capsys.readouterr()
    assert "unknown" in said.out
    assert said.err.startswith("note: round 1: no group had mixed outcomes")


def test_vapo_that_only_fits_its_critic_says_so(tmp_path: Path) -> None:
    good = _jsonl(tmp_path / "good.jsonl", GOOD)
    settings = IterateSettings(
        algorithm="vapo", rounds=1, steps=60, prompts=good, evaluate=good,
        options={"n_episodes": 8, "group_size": 4, "pretrain_updates": 1000, "pretrain_variance": 1.0},
    )  # fmt: skip
    row = iterate(settings, tmp_path / "run")[1]
    assert row["note"].startswith("all 60 steps went into pretraining the critic: the model did not change")
    before, after = (load_model(name).model for name in ("tiny-primary", str(tmp_path / "run" / "round-001" / "model")))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_an_unknown_reward_is_passed_over_when_rewards_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = _jsonl(tmp_path / "good.jsonl", GOOD)
    settings = IterateSettings(
        algorithm="ppo", rounds=2, steps=60, prompts=good, evaluate=good, options={"n_episodes": 8}
    )
    out = tmp_path / "run"
    monkeypatch.setattr(loop, "_imitate", lambda *_: None)
    iterate(IterateSettings(**{**settings.as_json(), "rounds": 1}), out)
    for number, reward in ((0, 2.0), (1, math.nan)):  # NaN is what older versions wrote
        path = out / f"round-00{number}" / "row.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "reward": reward}))
    rows = iterate(settings, out)
    assert rows[1]["reward"] is None
    assert rows[2]["reference_share"] > 0
