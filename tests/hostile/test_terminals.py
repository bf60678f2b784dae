"""Item 10: what models and strangers wrote is shown, and obeyed by no terminal, table or spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegym.__main__ import main
from treegym.display import csv_cell, markdown_cell, plain
from treegym.envs.token_tree.world import load_tree

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31mred\r\nover\u202egnirts"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    assert not CONTROL.search(plain(text))
    assert "\n" not in plain(text)
    assert "\n" not in markdown_cell(text)
    assert not csv_cell(text).startswith(("=", "+", "-", "@"))
    plain(text).encode()


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    load_tree("synthetic:roots=2,depth=3").save(tmp_path / "plain.tree")
    tree: Any = load_tree(str(tmp_path / "plain.tree"))
    tree.header["tokens"] = [NASTY.encode("utf-8").decode("latin-1") + str(i) for i in range(tree.vocab_size)]
    path = tmp_path / "nasty.tree"
    tree.save(path)
    return path


@pytest.mark.parametrize("words", [["tree", "show"], ["tree", "stats"], ["tree", "verify"]])
def test_trees_are_shown_without_being_obeyed(nasty: Path, capsys: Any, words: list[str]) -> None:
    assert main([*words, str(nasty)]) == 0
    assert not CONTROL.search(capsys.readouterr().out)


def test_drawings_are_shown_without_being_obeyed(nasty: Path) -> None:
    env = gym.make("TokenTree-v0", tree=str(nasty), render_mode="ansi", split="all")
    env.reset(seed=0)
    drawn: Any = env.render()
    assert not CONTROL.search(drawn)


def test_errors_are_shown_without_being_obeyed(tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "ppo", "--out", str(tmp_path), "--env", f"No{NASTY}"]) == 1
    assert main(["tree", "stats", f"/nowhere/{NASTY}"]) == 1
    assert not CONTROL.search(capsys.readouterr().err)


def test_tables_stay_tables() -> None:
    from treegym.bench.report import tables

    board: dict[str, Any] = {
        "suite": "s", "description": "d", "budget": {}, "metric": {}, "prompts": {}, "planner_sees": {},
        "references": {}, "remarks": [], "warnings": [f"a {NASTY}"], "seeds": [0], "runs": 1, "expected_runs": 1,
        "differences": [], "provenance": {},
        "agents": [{
            "rank": 1, "name": f"=cmd|' /C calc'!A0\n| x | {NASTY}", "runs": 1, "iqm": [0.5, None, None],
            "mean": [0.5, None, None], "median": [0.5, None, None], "optimality_gap": [0.5, None, None],
            "mean_over_prompts": [0.5, None, None], "regret": None, "length": None, "rating": None, "envs": {},
            "correct": None, "return": None, "true": None, "proxy": None,
            "cost": dict.fromkeys(("env_steps", "forward_passes", "cpu_seconds", "simulations", "judge_calls",
                                   "discarded_groups")),
        }],
    }  # fmt: skip
    assert not CONTROL.search(tables.as_text(board))
    table = [line for line in tables.as_markdown(board).splitlines() if line.startswith("| ")]
    assert len(table) == 3  # the header, the rule and one row
    [_, row] = list(csv.reader(io.StringIO(tables.as_csv(board))))
    assert row[1].startswith("'=cmd")
    assert np.isfinite(float(row[3]))
