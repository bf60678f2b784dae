"""The learned reward model: loss by hand, training on real tiny models, pairs, resuming after a kill."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from treegym.errors import ConfigError, DataError
from treegym.models.tokens.char_tokenizer import CharTokenizer
from treegym.rewards import build
from treegym.rewards.judge.prompt import Case
from treegym.rewards.learned.bradley_terry import RewardModel, bradley_terry_loss
from treegym.rewards.learned.preference import Pair, pairs_from_judge, pairs_from_tree, read_pairs, write_pairs
from treegym.rewards.learned.preference_training import TrainingSettings, train_reward_model


@pytest.fixture
def base(tmp_path):
    """A tiny Llama with random weights, saved and loaded as any other model."""
    return fresh_base(tmp_path / "base")


def fresh_base(folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    from treegym.models.loading import load_model

    if not folder.exists():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = LlamaConfig(**sizes, vocab_size=24, max_position_embeddings=64, num_key_value_heads=2)
        LlamaForCausalLM(config).save_pretrained(folder)
        CharTokenizer().save(folder / "tokenizer.json")
    return load_model(str(folder), device="cpu")


def parity_pairs(count, seed=0):
    """Answers ending in an even digit are preferred: something a linear head can read off the last state."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        a, b, even = rng.integers(10, 99), rng.integers(10, 99), rng.integers(0, 5, 2) * 2
        pairs.append(Pair(f"{a}+{b}=", f"{even[0]}.", f"{even[1] + 1}."))
    return pairs


def test_loss_by_hand():
    # -log sigmoid(1) = log(1 + e^-1); -log sigmoid(-2) = log(1 + e^2)
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert float(bradley_terry_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 2.0]))) == pytest.approx(expected)


@pytest.mark.parametrize("train", ["head", "full"])
def test_learns_and_is_read_back(base, tmp_path, train, small):
    settings = TrainingSettings(train=train, epochs=20 if train == "head" else 3, batch=32, learning_rate=1e-2, seed=1)
    model = train_reward_model(base, parity_pairs(200), tmp_path / "rm", settings=settings)
    assert model.facts["held_out_accuracy"] >= 0.95
    again = RewardModel.load(tmp_path / "rm")
    prompts, answers = ["12+34="] * 4, ["4.", "5.", "6.", "7."]
    assert again.scores(prompts, answers) == pytest.approx(model.scores(prompts, answers), abs=1e-5)
    small.text = lambda node: "4." if node == 4 else "5."
    table = build({"reward_model": {"model": str(tmp_path / "rm")}}).on(small)
    table.ensure(np.array([4, 6]))
    assert 0.0 < table.total[6] < table.total[4] < 1.0


@pytest.mark.parametrize("train", ["head", "full"])
def test_killed_run_goes_on_bit_for_bit(tmp_path, train):
    pairs = parity_pairs(60)
    settings = TrainingSettings(train=train, epochs=4, batch=16, checkpoint_every=3, held_out=0.0)

    class Killed(Exception):
        pass

    def kill(step, loss):
        if step == 8:
            raise Killed

    whole = train_reward_model(fresh_base(tmp_path / "base"), pairs, tmp_path / "whole", settings=settings)
    with pytest.raises(Killed):
        train_reward_model(fresh_base(tmp_path / "base"), pairs, tmp_path / "cut", settings=settings, after_step=kill)
    steps = []
    resumed = train_reward_model(
        fresh_base(tmp_path / "base"),
        pairs,
        tmp_path / "cut",
        settings=settings,
        after_step=lambda step, loss: steps.append(step),
    )
    assert steps[0] == 7  # from the checkpoint after step 6
    assert torch.equal(whole.head.weight, resumed.head.weight)
    assert (tmp_path / "whole" / "head.safetensors").read_bytes() == (
        tmp_path / "cut" / "head.safetensors"
    ).read_bytes()
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_checkpoint_of_another_run_is_refused(base, tmp_path):
    settings = TrainingSettings(epochs=2, batch=8, checkpoint_every=1, held_out=0.0)

    def kill(step, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reward_model(base, parity_pairs(20), tmp_path / "rm", settings=settings, after_step=kill)
    with pytest.raises(DataError, match="another run"):
        train_reward_model(base, parity_pairs(20, seed=1), tmp_path / "rm", settings=settings)


def test_prompts_are_held_out_not_pairs(base, tmp_path):
    pairs = [Pair("1=", "2.", "3."), Pair("1=", "4.", "5."), Pair("2=", "2.", "3."), Pair("2=", "4.", "3.")]
    settings = TrainingSettings(epochs=1, held_out=0.5)
    model = train_reward_model(base, pairs, tmp_path / "rm", settings=settings)
    assert (model.facts["pairs"], model.facts["held_out_pairs"]) == (2, 2)


def test_pairs_from_tree(small):
    # root 0: right ends 4 ("4") and 8 ("4."), wrong end 6 ("5")
    pairs = pairs_from_tree(small)
    assert sorted(pairs, key=lambda p: p.chosen) == [Pair("2+2=", "4", "5"), Pair("2+2=", "4.", "5")]
    assert len(pairs_from_tree(small, per_root=1)) == 1
    assert pairs_from_tree(small, roots=[1]) == []


def test_pairs_from_a_judge_keep_the_margin(small):
    class ByLength:
        def judge(self, cases):
            scores = [None if case.answer == "5" else len(case.answer) / 10 for case in cases]
            return scores, {}

    pairs, failed = pairs_from_judge(small, ByLength(), per_root=20, margin=0.05)
    assert set(pairs) == {Pair("2+2=", "4.", "4")}
    assert failed > 0
    assert pairs_from_judge(small, ByLength(), per_root=20, margin=0.2)[0] == []
    assert Case("a", "b").answer == "b"


def test_jsonl_round_trip_and_bad_lines(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [Pair("a", "b", "c"), Pair("ä\n", '"', "")]
    write_pairs(path, pairs)
    assert read_pairs(path) == pairs
    for line, words in [("{", "line 2: not valid JSON"), ('{"prompt": "a"}', "line 2: an object"), ("[]", "line 2")]:
        path.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n" + line + "\n")
        with pytest.raises(DataError, match=words):
            read_pairs(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no pairs"):
        read_pairs(path)


def test_damaged_models_and_settings(base, tmp_path):
    with pytest.raises(ConfigError, match="treegym train-reward"):
        RewardModel.load(tmp_path / "nothing")
    train_reward_model(base, parity_pairs(20), tmp_path / "rm", settings=TrainingSettings(epochs=1, train="full"))
    about = tmp_path / "rm" / "reward_model.json"
    text = about.read_text()
    about.write_text(text.replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(DataError, match="train it again"):
        RewardModel.load(tmp_path / "rm")
    about.write_text(text[:40])
    with pytest.raises(DataError, match="not valid JSON"):
        RewardModel.load(tmp_path / "rm")
    with pytest.raises(ConfigError, match="no preference pairs"):
        train_reward_model(base, [], tmp_path / "x")
    for options in ({"train": "all"}, {"epochs": 0}, {"held_out": 1.0}, {"learning_rate": -1.0}):
        with pytest.raises(ConfigError):
            TrainingSettings(**options)
