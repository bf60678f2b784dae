"""Beyond a model's positions: the first and the latest tokens are read, and within them nothing changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.windowed import Windowed


class Counting(FakeLanguageModel):
    """Has 16 positions; says 10, 11, 12, ... by how often it was asked, and remembers what it read."""

    context_length = 16

    def __init__(self) -> None:
        super().__init__()
        self.read: list[list[list[int]]] = []
        self.said = 10

    def generate(self, contexts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
        assert all(len(context) + settings["max_new_tokens"] <= 16 for context in contexts)
        self.read.append([list(context) for context in contexts])
        first, self.said = self.said, self.said + settings["max_new_tokens"]
        return [list(range(first, self.said)) for _ in contexts]


def test_what_is_read_of_a_text_that_does_not_fit() -> None:
    model = Counting()
    made = Windowed(model, sinks=2).generate([[2, 3, 4, 5, 6, 7, 8, 9]], max_new_tokens=14, stop_ids=[])
    # 8 read leave 8 of 16. Then 16 are there: a quarter, 4, is written after 2 first and 10 latest ones; then the last
    # 2 after 2 first and 12 latest.
    assert made == [list(range(10, 24))]
    assert model.read == [
        [[2, 3, 4, 5, 6, 7, 8, 9]],
        [[2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]],
        [[2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]],
    ]


def test_a_prompt_beyond_the_positions_is_cut_in_the_middle() -> None:
    model = Counting()
    Windowed(model, sinks=2).generate([list(range(2, 42)), [2, 3]], max_new_tokens=3, stop_ids=[])
    assert model.read == [[[2, 3, *range(31, 42)], [2, 3]]]  # 3 are to follow, and a quarter would be 4
    with pytest.raises(ConfigError, match="sinks is 5"):
        Windowed(model, sinks=5)


def test_rows_end_by_themselves() -> None:
    class Ends(Counting):
        def generate(self, contexts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
            made = super().generate(contexts, **settings)
            return [[*row[:2], 1] if len(self.read) == 2 and place == 0 else row for place, row in enumerate(made)]

    model = Ends()
    made = Windowed(model, sinks=2).generate([[2] * 8, [3] * 8], max_new_tokens=20)
    assert made[0] == [*range(10, 18), 18, 19, 1]
    assert len(made[1]) == 20
    assert [len(read) for read in model.read] == [2, 2, 1, 1]


def test_within_the_positions_nothing_changes(make_model) -> None:
    model = make_model("llama")
    windowed = Windowed(model)
    contexts = [[2 + i % 20 for i in range(length)] for length in (5, 40, 60)]
    settings = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3, "stop_ids": []}
    assert windowed.generate(contexts, **settings) == model.generate(contexts, **settings)
    [long] = windowed.generate([[2 + i % 20 for i in range(300)]], max_new_tokens=200, stop_ids=[])
    assert len(long) == 200
    assert windowed.fingerprint() == model.fingerprint()


def test_the_command_refuses_or_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    prompts = tmp_path / "long.jsonl"
    prompts.write_text(json.dumps({"prompt": "1+" * 60 + "1=", "answer": "61"}) + "\n")
    asked = ["eval", "tiny-primary", "--prompts", str(prompts), "--device", "cpu", "--max-tokens", "60"]
    assert main(asked) == 1
    assert "a context has 122 tokens, but tiny-primary takes" in capsys.readouterr().err
    assert main([*asked, "--beyond", "window", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 1
    prompts.write_text(json.dumps({"prompt": "11+" * 20 + "1=", "answer": "221"}) + "\n")
    assert main(asked) == 0
    assert "1 answers ended where the 64 positions of tiny-primary do" in capsys.readouterr().out
