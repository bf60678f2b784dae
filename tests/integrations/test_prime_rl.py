"""The table for prime-rl in the environments that it trains on: those of verifiers, before its tasksets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from treegym.integrations import formats

pytest.importorskip("verifiers.rubrics", reason="verifiers below 0.2 is tested in an environment of its own")
import verifiers as vf
from datasets import Dataset

COUNT = 6


def test_an_environment_reads_the_table_and_pays_by_our_reward(tmp_path: Path) -> None:
    formats.write_prompts("prime-rl", tmp_path / "train.parquet", f"bundled:train={COUNT}")
    rubric = vf.Rubric(funcs=[formats.rubric_reward])
    table = Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    rows = vf.SingleTurnEnv(dataset=table, rubric=rubric).get_dataset()
    written = formats.rows("prime-rl", f"bundled:train={COUNT}")
    assert [row["prompt"][-1]["content"] for row in rows] == [row["question"] for row in written]
    for row in rows:
        for said, pays in ((f"={row['answer']}.", 1.0), ("=no.", 0.0)):
            state = vf.State(input=dict(row))
            state["completion"] = [{"role": "assistant", "content": said}]
            state["trajectory"] = []
            asyncio.run(rubric.score_rollout(state))
            assert (state["reward"], state["metrics"]) == (pays, {"rubric_reward": pays})
