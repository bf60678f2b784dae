"""Prompts of others, by their own libraries: data sets of a hub on this machine, and reasoning-gym's puzzles."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError

pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parents[2]
CARD = b"""---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
---
"""
SUMS = "hf:ann/sums#question=question,answer=answer,config=main"
TRAIN = [
    {"question": "How many are 40 and 2?", "answer": "40+2=<<40+2=42>>42\n#### 42"},
    {"question": "How many are 1000 and 1?", "answer": "It is 1,001.\n#### 1,001"},
]
TEST = [{"question": "How many are 2 and 2?", "answer": "#### 4"}]
PARTS = (("train", TRAIN), ("test", TEST))


def _table(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


# what a child process prints: {source: what was told, or rows of prompt, answer, split, whether what was said is right}
LOAD = """
import json, sys
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import TreeGymError
found = {}
for source, said in json.loads(sys.argv[1]).items():
    try:
        loaded = load_prompts(source)
        found[source] = [[r.prompt, r.answer, r.split, loaded.verify(r, said) == 1.0] for r in loaded.roots]
    except TreeGymError as error:
        found[source] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


class Hub:
    """A hub on this machine, and a home to load to: the library reads where both are when it starts."""

    def __init__(self, server: Any, sums: Any, home: Path) -> None:
        self.server, self.sums, self.home = server, sums, home

    def load(self, sources: dict[str, str], **environment: str) -> dict[str, Any]:
        """Loads sources in a process of its own, each with what is said to its prompts."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOAD, json.dumps(sources)],
            capture_output=True, text=True, timeout=250, check=False,
            env={
                **os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": self.server.url, "HF_HOME": str(self.home),
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "", **environment,
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@pytest.fixture
def hub(module_of: Any, tmp_path: Path) -> Iterator[Hub]:
    served = module_of("tests/sharing/hub_server.py")
    server = served.HubServer()
    sums = server.repositories["dataset", "ann/sums"] = served.Repository()
    sums.commit("main", {"README.md": CARD, "main/train-0.parquet": _table(TRAIN), "main/test-0.parquet": _table(TEST)})
    yield Hub(server, sums, tmp_path / "home")
    server.close()


def test_a_data_set_of_a_hub_and_then_without_the_hub(hub: Hub) -> None:
    # the worked references of GSM8K: the answer is what follows "####"
    rows = [[r["question"], r["answer"], split, r is TRAIN[1]] for split, part in PARTS for r in part]
    only_test = f"{SUMS},part=test"
    assert hub.load({SUMS: "so it is = 1001", only_test: "4"}) == {SUMS: rows, only_test: [[*rows[2][:3], True]]}
    hub.server.requests.clear()
    other = SUMS.replace("sums", "others")
    assert hub.load({SUMS: "= 1001", other: "1"}, HF_HUB_OFFLINE="1") == {
        SUMS: rows,
        other: "BackendError: hf:ann/others: the hub cannot be reached, and the cache does not hold the data set",
    }
    assert hub.server.requests == []


def test_what_is_not_there_is_one_sentence(hub: Hub) -> None:
    told = {
        SUMS.replace("question=question", "question=q"): "no column is called 'q'; it has question, answer",
        SUMS.replace("ann/sums", "ann/sums@v9"): "Revision 'v9' doesn't exist",
        SUMS.replace("config=main", "config=mian"): "'mian' not found",
        SUMS + ",part=tset": "no part 'tset'. Did you mean 'test'",
        SUMS.replace("sums", "absent"): "doesn't exist on the Hub",
    }
    for source, answer in hub.load(dict.fromkeys(told, "1")).items():
        assert isinstance(answer, str), source
        assert answer.startswith("DataError: hf:ann/"), answer
        assert told[source] in answer
        assert "\n" not in answer


def test_damaged_data_and_a_hub_that_breaks_off_are_one_sentence(hub: Hub) -> None:
    good = dict(hub.sums.commits[hub.sums.refs["main"]])
    hub.sums.commit("main", {**good, "main/train-0.parquet": b"PAR1" + b"\0" * 40})
    [told] = hub.load({SUMS: "1"}).values()
    assert told.startswith("DataError: hf:ann/sums: the data set cannot be loaded: ")
    hub.sums.commit("main", {**good, "more": b""})  # another commit, of which the cache holds nothing
    for part, status in (("/resolve/", 403), ("/api/", 500)):
        hub.server.failing = {part: status}
        [told] = hub.load({SUMS: "1"}).values()
        assert re.match(r"(BackendError|DataError): hf:ann/sums: the (hub|data set) \w+", told), told
        assert "\n" not in told


def test_rows_without_an_answer_have_none_and_nested_ones_are_refused(hub: Hub) -> None:
    rows = [*TRAIN, {"question": "How many are left?", "answer": None}]
    hub.sums.commit(
        "main", {"README.md": CARD, "main/train-0.parquet": _table(rows), "main/test-0.parquet": _table(TEST)}
    )
    [found] = hub.load({SUMS: "None"}).values()
    assert found[2] == ["How many are left?", "", "train", False]
    nested = _table([{"question": "Who?", "answer": {"text": ["Ann"], "start": [3]}}])
    hub.sums.commit("main", {"README.md": CARD, "main/train-0.parquet": nested, "main/test-0.parquet": nested})
    [told] = hub.load({SUMS: "1"}).values()
    assert "row 1: the answer is" in told
    assert told.endswith("a column of texts or numbers was expected")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("chain_smu", "there is no such generator. Did you mean 'chain_sum'"),
        ("chain_sum,min_trems=3", "no option 'min_trems', but min_terms, .*Did you mean 'min_terms'"),
        ("chain_sum,min_terms=three", "min_terms is 'three'; a number was expected"),
        ("chain_sum,allow_negation=perhaps", "allow_negation is 'perhaps'; true or false was expected"),
        ("chain_sum,min_terms=5,max_terms=2", "makes no prompts with .*max_terms=2: max_terms must be >= min_terms"),
        ("chain_sum,seed=x", "makes no prompts with seed=x"),
    ],
)
def test_knobs_that_mean_nothing_are_one_sentence(options: str, told: str) -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ConfigError, match=told) as caught:
        load_prompts(f"reasoning-gym:{options}")
    assert "\n" not in str(caught.value)
    assert "__init__" not in str(caught.value)


def test_difficulty_is_passed_on() -> None:
    pytest.importorskip("reasoning_gym")
    easy, hard = (
        load_prompts(f"reasoning-gym:chain_sum,size=5,min_terms={n},max_terms={n},min_digits=1,max_digits=1").roots
        for n in (2, 6)
    )
    assert all(sum(root.prompt.count(sign) for sign in (" + ", " - ")) == 1 for root in easy)  # n terms: n - 1 signs
    assert all(sum(root.prompt.count(sign) for sign in (" + ", " - ")) == 5 for root in hard)
    products = load_prompts('reasoning-gym:basic_arithmetic,size=5,operators=["*"],min_terms=2,max_terms=2').roots
    assert all("*" in root.prompt and " + " not in root.prompt for root in products)
