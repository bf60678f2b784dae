from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError, DataError
from treegym.iterate import IterateSettings, iterate
from treegym.iterate.experts import play_by_prior
from treegym.iterate.pairs import Pair, answer_pairs, sibling_pairs, walk_pairs, written_pairs
from treegym.models import load_model
from treegym.tree.editing import select_roots
from treegym.tree.token_tree import BUNDLED, TokenTree

torch.set_num_threads(1)


def test_right_answers_are_preferred_to_wrong_ones_each_once() -> None:
    answers = [(1, 9), (2, 9), (1, 9), (3, 9), ()]
    pairs = answer_pairs((5,), answers, [True, False, True, False, False], np.random.default_rng(0))
    assert len(pairs) == 1  # one right answer, though it came twice; the empty one is none
    assert pairs[0].chosen == (1, 9)
    assert pairs[0].rejected in ((2, 9), (3, 9))
    assert answer_pairs((5,), answers[:1], [True], np.random.default_rng(0)) == []


def test_siblings_are_weighed_by_the_exact_gap_in_value(hand_made: TokenTree) -> None:
    # Below the root: a leads to a wrong end (0), b to a right one (1), c to one that the verifier gives a quarter.
    hand_made.verdict[9] = 0.25
    pairs = sibling_pairs(TreeWorld(hand_made, split="train"), [0])
    assert pairs == [Pair([0, 1], [1], [0], 1.0), Pair([0, 1], [1], [2], 0.75)]


def test_an_end_that_the_budget_cuts_off_is_worth_nothing(hand_made: TokenTree) -> None:
    # With two tokens, c's end is out of reach: b (1) is better than a and c (0) alike.
    pairs = sibling_pairs(TreeWorld(hand_made, split="train", max_tokens=2), [0])
    assert [(pair.rejected, pair.weight) for pair in pairs] == [([0], 1.0), ([2], 1.0)]


def test_walks_are_drawn_as_the_primary_chooses_and_compared_by_root(hand_made: TokenTree) -> None:
    world = TreeWorld(hand_made, split="train")
    played = play_by_prior(world, np.zeros(4000, np.int64), seed=0)
    first = np.array([path[0] for path in played.paths])
    chances = np.exp([-0.5, -1.0, -2.0]) / np.exp([-0.5, -1.0, -2.0]).sum()  # 0.547, 0.331, 0.122
    np.testing.assert_allclose([(first == node).mean() for node in (1, 2, 3)], chances, atol=0.03)
    assert [played.correct[i] for i in range(50)] == [node != 1 for node in first[:50]]  # a alone leads to a wrong end
    pairs = walk_pairs(hand_made, played.roots, played.paths, played.correct, seed=0)
    assert [(pair.context, pair.rejected) for pair in pairs] == [((0, 1), (0, 1, 3))]
    assert pairs[0].chosen in ((1, 3), (2, 0, 1, 3))


@pytest.mark.parametrize("algorithm", ["dpo", "ipo", "simpo"])
def test_rounds_on_free_text_raise_accuracy(tmp_path: Path, algorithm: str) -> None:
    settings = IterateSettings(
        algorithm=algorithm, rounds=1, steps=24_000, prompts="bundled:train=600", evaluate="bundled:validation=100"
    )
    rows = iterate(settings, tmp_path)
    assert rows[1]["accuracy"] > rows[0]["accuracy"] + 0.1
    assert 0.0 < rows[1]["reward"] < 1.0


def test_rounds_on_a_tree_learn_from_its_siblings(tmp_path: Path) -> None:
    tree = TokenTree.open(BUNDLED)
    select_roots(tree, tree.roots_in("train")[:12]).save(tmp_path / "small.tree")
    settings = IterateSettings(
        algorithm="dpo", ground="tree", tree=str(tmp_path / "small.tree"), rounds=2, evaluate="bundled:test=8",
        options={"samples": 16},
    )  # fmt: skip
    rows = iterate(settings, tmp_path / "run")
    assert rows[2]["reward"] > rows[1]["reward"] + 0.05  # what the primary comes to on the tree, before each round
    weights = TokenTree.open(tmp_path / "run" / "round-001" / "tree.tree").weight
    assert (weights > 0).all()


def test_pairs_of_a_file_are_learned(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "12+30-5=", "chosen": "37.", "rejected": "12+30=42.42-5=37."}\n')
    settings = IterateSettings(
        algorithm="dpo", rounds=1, prompts="bundled:train=4", evaluate="bundled:test=4",
        options={"pairs": str(file), "n_epochs": 10, "learning_rate": 1e-3},
    )  # fmt: skip
    rows = iterate(settings, tmp_path / "run")
    assert rows[1]["reward"] is None  # nothing was answered
    before, after = load_model("tiny-primary"), load_model(str(tmp_path / "run" / "round-001" / "model"))
    [pair] = written_pairs(str(file), before, settings.form)
    assert pair.chosen[-1] == before.tokenizer.eos_id
    gaps = []
    for model in (before, after):
        chosen, rejected = model.score([pair.context] * 2, [pair.chosen, pair.rejected])
        gaps.append(chosen.sum() - rejected.sum())
    assert gaps[1] > gaps[0] + 1.0
    with pytest.raises(ConfigError, match="are free texts; use ground='text'"):
        iterate(replace(settings, ground="tree"), tmp_path / "other")
    with pytest.raises(DataError, match="cannot be read"):
        iterate(replace(settings, options={"pairs": str(tmp_path / "no.jsonl")}), tmp_path / "other")


def test_adapters_learn_and_go_on_in_the_next_round(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    settings = IterateSettings(
        algorithm="dpo", rounds=2, steps=4000, prompts="bundled:train=100", evaluate="bundled:validation=8",
        learning_rate=3e-3, policy={"lora_rank": 2},
    )  # fmt: skip
    iterate(settings, tmp_path)
    first, second = (
        load_file(tmp_path / f"round-00{number}" / "adapters" / "adapter_model.safetensors") for number in (1, 2)
    )
    ups = [name for name in first if ".lora_B." in name]  # they begin as zeros
    assert all(first[name].any() for name in ups)
    assert any(not torch.equal(first[name], second[name]) for name in ups)


def test_a_round_without_pairs_says_so_and_changes_nothing(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "1+2+3=", "answer": "no number is this"}\n')
    settings = IterateSettings(
        algorithm="dpo", rounds=1, steps=60, prompts=str(prompts), evaluate=str(prompts), reference=0
    )
    rows = iterate(settings, tmp_path / "run")
    assert "no prompt had both right and wrong answers" in rows[1]["note"]
    before = load_model("tiny-primary").model
    after = load_model(str(tmp_path / "run" / "round-001" / "model")).model
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ground": "text", "options": {"pairs": "siblings"}}, "siblings are children of a tree"),
        ({"options": {"beta": -0.5}}, "beta is -0.5; it must be above 0"),
        ({"options": {"group_size": 8}}, "simpo has no switch 'group_size'"),
        ({"learning_rate": "lin_x"}, "lin_x"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_trained(
    tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        iterate(IterateSettings(algorithm="simpo", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
