"""Prompts from CSV, Parquet and hubs; `treegym prompts check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treegym.__main__ import main
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError, TreeGymError

ROWS = [{"q": "1+1?", "a": "2", "split": "train"}, {"q": "2+2?", "a": "4", "split": "test"}]


def _csv(path: Path, text: str = "q,a,split\n1+1?,2,train\n2+2?,4,test\n") -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=["csv", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "csv":
        return _csv(tmp_path / "t.csv")
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_columns_are_named_after_the_hash(table: Path) -> None:
    found = load_prompts(f"{table}#question=q,answer=a")
    assert [(r.prompt, r.answer, r.split) for r in found.roots] == [("1+1?", "2", "train"), ("2+2?", "4", "test")]
    assert found.verify(found.roots[0], "it is = 2") == 1.0
    assert found.verify(found.roots[0], "it is = 3") == 0.0


def test_what_is_wrong_with_a_table_is_one_sentence(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column is called prompt or question"):
        load_prompts(str(table))
    with pytest.raises(DataError, match="no column is called 'x'; it has q, a, split"):
        load_prompts(f"{table}#question=q,answer=x")
    with pytest.raises(ConfigError, match="Did you mean 'answer'"):
        load_prompts(f"{table}#question=q,anwser=a")
    with pytest.raises(ConfigError, match="of data sets on a hub"):
        load_prompts(f"{table}#question=q,answer=a,config=main")
    damaged = tmp_path / f"d{table.suffix}"
    damaged.write_bytes(b"\xff\xfe\x00PAR1" + b"\x80" * 64)
    with pytest.raises(DataError):
        load_prompts(f"{damaged}#question=q,answer=a")
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(str(tmp_path / f"absent{table.suffix}"))
    with pytest.raises(DataError, match="row 1: its column 'q' is empty"):
        load_prompts(f"{_csv(tmp_path / 'e.csv', 'q,a' + chr(10) + ',1' + chr(10))}#question=q,answer=a")


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TreeGymError) as told:
        load_prompts("hf:nobody/nothing#question=q,answer=a")
    assert str(told.value).startswith("hf:nobody/nothing: the ")


def test_check_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"prompt": "1+1?", "answer": "2", "split": "train"},
        {"prompt": "1+1?", "answer": "2", "split": "train"},
        {"prompt": "1+1?", "answer": "2", "split": "test"},
        {"prompt": "open", "split": "train"},
    ]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["prompts", "check", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["splits"] == {"train": 3, "test": 1}
    assert {what: count for what, (count, _) in found["problems"].items()} == {
        "prompts that come twice": 1, "prompts in several splits": 1, "prompts without an answer": 1,
    }  # fmt: skip
    assert main(["prompts", "check", "bundled:train=30,test=10"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    pytest.importorskip("transformers")
    assert main(["prompts", "check", "bundled:train=5", "--model", "tiny-primary", "--max-prompt-tokens", "3"]) == 1
    assert "longer than" in capsys.readouterr().out
