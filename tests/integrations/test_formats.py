"""Tables and reward functions for verl, SkyRL and prime-rl; test_verl.py and test_skyrl.py read them with theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treegym.errors import ConfigError, DataError
from treegym.integrations import formats


def test_a_right_answer_pays_one_as_everywhere() -> None:
    for row in formats.rows("verl", "bundled:train=5"):
        truth = row["reward_model"]["ground_truth"]
        assert formats.compute_score("treegym", f"={truth}.", truth, row["extra_info"]) == 1.0
        assert formats.compute_score("treegym", "no", truth, row["extra_info"]) == 0.0


def test_another_reward_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reward.json"
    file.write_text('{"verifier": 0.5}')
    monkeypatch.setenv(formats.REWARD, str(file))
    assert formats.compute_score("treegym", "4", "4") == 0.5


@pytest.mark.parametrize("form", formats.FORMATS)
def test_tables_are_read_back(form: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert formats.write_prompts(form, tmp_path / "p.parquet", "bundled:train=7") == 7
    assert parquet.read_table(tmp_path / "p.parquet").to_pylist() == formats.rows(form, "bundled:train=7")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format"):
        formats.rows("other")
    (tmp_path / "open.jsonl").write_text(json.dumps({"prompt": "Say something."}) + "\n")
    with pytest.raises(DataError, match="has no answer"):
        formats.rows("verl", str(tmp_path / "open.jsonl"))
