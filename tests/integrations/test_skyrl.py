"""SkyRL's own dataset and environments over the table and the class that are made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import treegym.models
from treegym.errors import DataError
from treegym.integrations import formats

pytest.importorskip("skyrl_gym", reason="SkyRL is tested in an environment of its own")
import skyrl_gym
from skyrl.train.dataset import PromptDataset

import treegym.integrations.skyrl
from treegym.integrations.trl import tokenizer

COUNT = 12


@pytest.fixture
def data(tmp_path: Path) -> PromptDataset:
    formats.write_prompts("skyrl", tmp_path / "train.parquet", f"bundled:train={COUNT}")
    speaker: Any = tokenizer(str(Path(treegym.models.__file__).parent / "data" / "tiny-primary"))
    speaker.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"  # SkyRL speaks in messages
    return PromptDataset(str(tmp_path / "train.parquet"), speaker, max_prompt_length=64, num_workers=1)


def test_its_dataset_and_its_environments_take_the_rows(data: PromptDataset, tmp_path: Path, monkeypatch: Any) -> None:
    written = formats.rows("skyrl", f"bundled:train={COUNT}")
    assert len(data) == COUNT
    for item, row in zip(data.collate_fn([data[i] for i in range(COUNT)]), written, strict=True):
        assert item["prompt"] == row["prompt"]
        # as SkyRL's generator makes them: the class by its name, the other columns as extras
        for text, pays in ((f"={row['reward_spec']['ground_truth']}.", 1.0), ("=no.", 0.0)):
            env = skyrl_gym.make(item["env_class"], env_config={}, extras={**item["env_extras"], "max_turns": 1})
            assert env.init(item["prompt"]) == (row["prompt"], {})
            said = env.step(text)
            assert (said["reward"], said["done"], said["observations"]) == (pays, True, [])
    (tmp_path / "reward.json").write_text('{"verifier": 0.5}')
    monkeypatch.setenv(formats.REWARD, str(tmp_path / "reward.json"))
    assert env.step(f"={written[-1]['reward_spec']['ground_truth']}.")["reward"] == 0.5


def test_a_row_without_an_answer_is_a_sentence() -> None:
    with pytest.raises(DataError, match=r"columns are \['extra_info'\], and reward_spec with a ground_truth"):
        treegym.integrations.skyrl.AnswerEnv(extras={"extra_info": {}})
