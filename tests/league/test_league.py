from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.league import FLOOR, League, Member, Rules, practice, win_rate

LEAGUE = ["league", "dapo", "--env-arg", "tree=synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0"]
LEAGUE += ["--mains", "2", "--exploiters", "1", "--generations", "2", "--steps", "1500", "--json"]
LEAGUE += ["--set", "n_episodes=64"]


def test_win_rates_count_the_prompts_that_tell_two_apart() -> None:
    assert win_rate([1, 1, 0, 1], [0, 1, 1, 0]) == pytest.approx(2 / 3)  # won 2, lost 1, one alike
    assert win_rate([1, 0], [1, 0]) == 0.5


def test_a_main_practises_where_those_it_loses_to_beat_it() -> None:
    main_agent = Member("main-0", train=[1, 0, 0, 1])
    better = Member("a", train=[1, 1, 0, 0])  # one prompt won, one lost: rate 1/2, weight 1/4
    much = Member("b", train=[1, 1, 1, 1])  # both that differ are lost: rate 0, weight 1
    untrained = Member("c")
    # prompt 1: both beat it; prompt 2: only b; prompts 0 and 3: nobody
    expected = [FLOOR, FLOOR + 1.25, FLOOR + 1.0, FLOOR]
    np.testing.assert_allclose(practice(main_agent, [better, much, untrained]), expected)


def _member(name: str, file: str, validation: list[float], train: list[float] | None = None) -> Member:
    return Member(name, file, train or [0.0, 0.0, 1.0, 1.0], validation)


def test_exploiters_are_trained_where_mains_fail_and_promoted_by_win_rate() -> None:
    league = League(Rules(mains=2, exploiters=1, generations=3, steps=10, share=0.5))
    first = league.jobs(4)
    assert [job["name"] for job in first] == ["main-0", "main-1", "exploiter-0"]
    assert [job["file"] for job in first] == ["", "", ""]
    assert [len(job["prompts"]) for job in first] == [2, 2, 2]
    assert len({job["seed"] for job in first}) == 3
    league.take([_member("main-0", "m0", [1, 1, 0, 0]), _member("main-1", "m1", [1, 0, 0, 0]),
                 _member("exploiter-0", "x0", [1, 1, 1, 1])], steps=30)  # fmt: skip
    assert [one.name for one in league.snapshots] == ["main-0@0", "main-1@0"]  # the first of each; nobody else yet
    second = league.jobs(4)
    assert second[2]["file"] == "m0"  # the best main
    assert second[2]["prompts"] == [0, 1]  # where both mains fail
    league.take([_member("main-0", "m2", [1, 1, 0, 0]), _member("main-1", "m3", [0, 0, 0, 0]),
                 _member("exploiter-0", "x1", [1, 1, 1, 0])], steps=30)  # fmt: skip
    # it wins one of one against main-0, so it takes the place of main-1; that wins 2 of 2 against its snapshot
    assert [one.file for one in league.mains] == ["m2", "x1"]
    assert [one.name for one in league.snapshots] == ["main-0@0", "main-1@0", "main-1@1"]  # main-0 did no better
    assert league.best().file == "x1"
    assert league.steps == 60
    assert League.of(json.loads(json.dumps(league.as_json()))).jobs(4) == league.jobs(4)


def test_a_league_is_resumed_and_comes_to_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openskill")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*LEAGUE, "--out", str(whole)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["champion"] in told["members"]
    assert told["env_steps"] >= Rules(mains=2, exploiters=1, generations=2, steps=1500).budget
    assert (whole / "champion.zip").is_file()
    cut.mkdir()
    for name in ("main-0-0.zip", "main-1-0.zip", "exploiter-0-0.zip"):  # as one that was killed in generation 1
        (cut / name).write_bytes((whole / name).read_bytes())
    state = json.loads((whole / "league.json").read_text())
    league = League.of(state["league"])
    first = League(league.rules)
    half = [_trained_in_first(whole, name, state) for name in ("main-0", "main-1", "exploiter-0")]
    first.take(half, steps=0)
    first.steps = 0
    (cut / "league.json").write_text(json.dumps({"setup": state["setup"], "league": first.as_json()}))
    assert main([*LEAGUE, "--out", str(cut)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["members"] == told["members"]
    assert main(["eval", str(cut / "champion.zip"), *LEAGUE[2:4], "--json"]) == 0
    assert main([*LEAGUE[:-2], "--out", str(cut)]) == 1
    assert "holds a league with other settings" in capsys.readouterr().err


def _trained_in_first(out: Path, name: str, state: dict[str, Any]) -> Member:
    """Returns how an agent did after the first generation, by playing its file."""
    from treegym.agents import DAPO
    from treegym.commands.league import _player
    from treegym.tree.opening import load_tree

    agent = DAPO.load(out / f"{name}-0.zip")
    tree = load_tree(state["setup"]["env_args"]["tree"])
    scores = {split: _player(tree, {}, split)(agent) for split in ("train", "validation")}
    return Member(name, f"{name}-0.zip", scores["train"], scores["validation"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mains", "0"], "mains is 0"),
        (["--share", "2"], "share is 2.0"),
        (["--env-arg", "split=test"], "leave split and curriculum out"),
    ],
)
def test_what_cannot_be_played_is_told(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openskill")
    assert main([*LEAGUE, *words, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"promotion is 0\.2"):
        Rules(promotion=0.2)
