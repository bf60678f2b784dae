"""Prompt sources: what they give, and what they say about files they cannot use."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError
from treegym.rewards.answers import agrees, stated_answer

needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("datasets", "reasoning_gym")
}


def jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_the_bundled_suite_is_split_and_verified() -> None:
    found = load_prompts("bundled:train=8,test=4", seed=3)
    assert [root.split for root in found.roots] == ["train"] * 8 + ["test"] * 4
    assert len({root.prompt for root in found.roots}) == 12
    assert len({root.kind for root in found.roots}) == 4
    assert found.verify(found.roots[0], f"1+1=2.{found.roots[0].answer}.") == 1.0
    assert found.verify(found.roots[0], "no number") == 0.0
    assert found.roots == load_prompts("bundled:train=8,test=4", seed=3).roots
    assert found.roots != load_prompts("bundled:train=8,test=4", seed=4).roots


def test_jsonl_with_and_without_extras(tmp_path: Path) -> None:
    source = jsonl(
        tmp_path / "q.jsonl",
        {"prompt": "2+2=", "answer": 4},
        "",
        {"prompt": "3*3=", "answer": "9", "split": "dev", "kind": "product"},
        {"prompt": "Say something."},
    )
    found = load_prompts(source)
    assert [(r.prompt, r.answer, r.split, r.kind) for r in found.roots] == [
        ("2+2=", "4", "train", ""),
        ("3*3=", "9", "validation", "product"),
        ("Say something.", "", "train", ""),
    ]
    assert found.verify(found.roots[0], "the answer is 4.") == 1.0
    assert found.verify(found.roots[0], "5") == 0.0
    assert math.isnan(found.verify(found.roots[2], "anything"))
    assert len(load_prompts(source, limit=2).roots) == 2


def test_prompts_without_a_split_are_dealt_by_their_own_hash(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+1=", "answer": i + 1} for i in range(300)]
    kept = {"prompt": "0*0=", "answer": 0, "split": "test"}
    found = load_prompts(jsonl(tmp_path / "q.jsonl", *rows, kept), shares=[6, 1, 3])
    counts = {split: sum(r.split == split for r in found.roots) for split in ("train", "validation", "test")}
    assert 150 < counts["train"] < 210
    assert 15 < counts["validation"] < 50
    reversed_file = load_prompts(jsonl(tmp_path / "r.jsonl", kept, *rows[::-1]), shares=[6, 1, 3])
    assert {r.prompt: r.split for r in found.roots} == {r.prompt: r.split for r in reversed_file.roots}
    assert found.roots[-1].split == "test"
    with pytest.raises(ConfigError, match="three numbers"):
        load_prompts(str(tmp_path / "q.jsonl"), shares=[1, 2])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the prompt file is empty"),
        ([{"prompt": "a"}, '{"prompt": "b"'], r"line 2: not valid JSON"),
        ([{"prompt": "a"}, "", {"question": "b"}], r"line 3: expected an object like"),
        ([{"prompt": "a", "answer": [1]}], r"line 1: the answer must be a string or a number"),
        ([{"prompt": "a", "split": "trian"}], r"line 1: the split is 'trian'"),
        (["[" * 100_000], r"line 1: not valid JSON"),
    ],
)
def test_malformed_jsonl_is_named_by_line(rows: list[object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_prompts(jsonl(tmp_path / "q.jsonl", *rows))


def test_other_unusable_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such prompt file"):
        load_prompts(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(DataError, match="not a dataset directory"):
        load_prompts(str(tmp_path))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "gr\xf6sse"}\n')
    with pytest.raises(DataError, match="not UTF-8 text"):
        load_prompts(str(tmp_path / "latin.jsonl"))
    with pytest.raises(ConfigError, match=r"no split 'trian'\. Did you mean 'train'"):
        load_prompts("bundled:trian=3")
    with pytest.raises(ConfigError, match="not a number of prompts"):
        load_prompts("bundled:train=many")
    with pytest.raises(DataError, match="holds no prompts"):
        load_prompts("bundled:train=0")


@needs["datasets"]
def test_a_dataset_on_disk(tmp_path: Path) -> None:
    import datasets

    train = datasets.Dataset.from_dict({"question": ["2+2?", "3+3?"], "answer": ["#### 4", "#### 6"]})
    test = datasets.Dataset.from_dict({"question": ["4+4?"], "answer": ["8"]})
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "d"))
    found = load_prompts(str(tmp_path / "d"))
    assert [(r.prompt, r.split) for r in found.roots] == [("2+2?", "train"), ("3+3?", "train"), ("4+4?", "test")]
    assert found.verify(found.roots[0], "2 and 2 are 4.") == 0.0
    assert found.verify(found.roots[0], "2+2 = 4.") == 1.0
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "e"))
    with pytest.raises(DataError, match="no column is called prompt or question"):
        load_prompts(str(tmp_path / "e"))


@needs["reasoning_gym"]
def test_reasoning_gym_brings_its_own_verifier() -> None:
    found = load_prompts("reasoning-gym:chain_sum,size=5,min_digits=1,max_digits=1", seed=7)
    assert len(found.roots) == 5
    root = found.roots[0]
    assert found.verify(root, root.answer) == 1.0
    assert found.verify(root, "not it") < 0.5
    with pytest.raises(ConfigError, match="reasoning-gym:no_such_task"):
        load_prompts("reasoning-gym:no_such_task")
    with pytest.raises(ConfigError, match="expected name=value"):
        load_prompts("reasoning-gym:chain_sum,size")


@pytest.mark.parametrize(
    ("text", "answer", "same"),
    [
        ("21", "21", True),
        ("13+8=021.", "21", True),  # the last result, by value
        ("The answer is 21.", "21", True),
        ("#### 1,024", "1024", True),
        (r"so \boxed{7}", "7", True),
        ("Final answer: Paris", "paris", True),
        ("21 or 22", "21", False),
        ("", "21", False),
        ("It is 21, no wait: 22", "21", False),
    ],
)
def test_free_texts_against_references(text: str, answer: str, same: bool) -> None:
    assert agrees(text, answer) is same


def test_what_a_text_states_as_its_answer() -> None:
    assert stated_answer("6*7 = 42") == "42"
    assert stated_answer("answer is: yes.") == "yes"
    assert stated_answer("no marker here") == "no marker here"
