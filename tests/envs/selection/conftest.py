"""A small recorded table with known numbers, and small modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


def _row(strategies: list[str], speed: float, memory: float, accuracy: float) -> dict[str, Any]:
    values = {"speed": speed, "memory": memory, "accuracy": accuracy}
    measurement: dict[str, Any] = {k: {"value": v, "low": v, "high": v} for k, v in values.items()}
    return {"strategies": strategies, "measurement": measurement, "reason": ""}


@pytest.fixture
def table_file(tmp_path: Path) -> str:
    """Two training modules and one test module; fitness of their candidates is easy to work out by hand."""
    modules = []
    for name, split in (("alpha", "train"), ("beta", "train"), ("gamma", "test")):
        modules.append(
            {
                "name": name, "size": 0, "kind": "dense", "split": split, "features": {"width": float(len(modules))},
                "records": [
                    _row([], 1.01, 1.0, 1.0),
                    _row(["bf16"], 2.0, 2.0, 0.9),
                    _row(["inplace"], 1.0, 1.0, 1.0),
                    _row(["inplace", "bf16"], 3.0, 2.0, 0.9),
                    _row(["low_rank"], 4.0, 4.0, 0.0),
                    {"strategies": ["fp16"], "measurement": None, "reason": "no such thing"},
                ],
            }
        )  # fmt: skip
    file = tmp_path / "table.json"
    file.write_text(json.dumps({"format": 1, "modules": modules}))
    return str(file)
