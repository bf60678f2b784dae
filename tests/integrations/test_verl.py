"""verl's own dataset and reward manager over the table and the reward that are written for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import treegym.models
from treegym.integrations import formats

pytest.importorskip("verl", reason="verl is tested in an environment of its own")
from hydra import compose, initialize_config_module
from transformers import PreTrainedTokenizerBase
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

from treegym.integrations.trl import tokenizer

COUNT = 12
MODEL = str(Path(treegym.models.__file__).parent / "data" / "tiny-primary")


@pytest.fixture
def speaker() -> PreTrainedTokenizerBase:
    made: Any = tokenizer(MODEL)
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"  # verl speaks in messages
    return made


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """The settings that verl's command line makes, with the lines that docs/ecosystem.md names."""
    formats.write_prompts("verl", tmp_path / "train.parquet", f"bundled:train={COUNT}")
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(
            "ppo_trainer",
            overrides=[
                f"data.train_files={tmp_path / 'train.parquet'}",
                f"+data.cache_dir={tmp_path / 'cache'}",
                "data.filter_overlong_prompts=true",
                "reward.custom_reward_function.path=pkg://treegym.integrations.formats",
                "reward.custom_reward_function.name=compute_score",
            ],
        )


def read(config: Any, speaker: PreTrainedTokenizerBase) -> RLHFDataset:
    return RLHFDataset(data_files=config.data.train_files, tokenizer=speaker, config=config.data)


def test_its_dataset_reads_the_table(config: Any, speaker: PreTrainedTokenizerBase) -> None:
    written = formats.rows("verl", f"bundled:train={COUNT}")
    data = read(config, speaker)
    assert len(data) == COUNT
    for found, row in zip([data[i] for i in range(COUNT)], written, strict=True):
        assert found["raw_prompt"] == row["prompt"]
        assert found["reward_model"]["ground_truth"] == row["reward_model"]["ground_truth"]
        assert found["index"] == row["extra_info"]["index"]
    longest = max(len(speaker.encode(row["prompt"][0]["content"])) for row in written)
    config.data.max_prompt_length = longest - 1  # its length filter reads the prompts, too
    assert 0 < len(read(config, speaker)) < COUNT


def test_its_reward_manager_pays_what_the_suite_pays(
    config: Any, speaker: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read(config, speaker)
    batch = collate_fn([data[i] for i in range(COUNT)])
    # every second answer is right, the others say something that no verifier accepts
    texts = [f"={row['ground_truth']}." if i % 2 == 0 else "=no." for i, row in enumerate(batch["reward_model"])]
    manager = load_reward_manager(config, speaker)

    async def paid() -> list[float]:
        """All at once, as verl's reward workers ask: the answers are judged in threads."""
        asked = [manager.run_single(answered(speaker, batch, i, text)) for i, text in enumerate(texts)]
        return [one["reward_score"] for one in await asyncio.gather(*asked)]

    assert manager.loop.run_until_complete(paid()) == [1.0, 0.0] * (COUNT // 2)
    (tmp_path / "reward.json").write_text('{"verifier": 0.5}')
    monkeypatch.setenv(formats.REWARD, str(tmp_path / "reward.json"))
    assert manager.loop.run_until_complete(paid()) == [0.5, 0.0] * (COUNT // 2)


def answered(speaker: PreTrainedTokenizerBase, batch: dict[str, Any], index: int, text: str) -> DataProto:
    """One prompt with one answer, padded on both sides as verl's rollouts are."""
    import numpy as np
    import torch

    prompt = speaker.encode(batch["raw_prompt"][index][0]["content"])
    answer = speaker.encode(text, add_special_tokens=False)
    padding = int(speaker.pad_token_id or 0)
    mask = [0] + [1] * (len(prompt) + len(answer)) + [0, 0]
    return DataProto.from_dict(
        tensors={
            "prompts": torch.tensor([[padding, *prompt]]),
            "responses": torch.tensor([[*answer, padding, padding]]),
            "attention_mask": torch.tensor([mask]),
        },
        non_tensors={
            name: np.array([batch[name][index]], dtype=object) for name in ("data_source", "reward_model", "extra_info")
        },
    )
