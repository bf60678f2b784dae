from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from treegym.bench.compare import compare, comparison_text
from treegym.bench.leaderboard import leaderboard_of
from treegym.bench.report import write_report
from treegym.bench.runner import run_suite
from treegym.bench.suite import parse_suite
from treegym.bench.verify import submit, verify
from treegym.errors import DataError

pytestmark = pytest.mark.usefixtures("contestants_on_path")


@pytest.fixture
def folder(tmp_path: Path, small_table: dict[str, Any]) -> Path:
    small_table["agents"] = small_table["agents"][:2]
    run_suite(parse_suite(small_table, where="test"), tmp_path / "out", workers=1)
    write_report(leaderboard_of(tmp_path / "out"), tmp_path / "out")
    return tmp_path / "out"


def _rewrite(path: Path, change: Any) -> None:
    """Changes raw episodes and the summary's hash of them, as a careful forger would."""
    import hashlib

    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    change(rows)
    data = ("\n".join(map(json.dumps, rows)) + "\n").encode()
    path.write_bytes(gzip.compress(data, mtime=0))
    summary_path = Path(str(path).removesuffix(".jsonl.gz") + ".json")
    summary = json.loads(summary_path.read_text())
    summary["episodes"]["sha256"] = hashlib.sha256(data).hexdigest()
    summary_path.write_text(json.dumps(summary))


def test_an_untouched_folder_is_sound(folder: Path) -> None:
    found = verify(folder)
    assert found.sound, found.problems
    assert found.runs == 4
    assert found.replayed == found.episodes > 0
    assert found.leaderboard == leaderboard_of(folder)


def test_a_better_score_in_the_summary_is_noticed(folder: Path) -> None:
    path = folder / "runs" / "tiny--chance--0.json"
    summary = json.loads(path.read_text())
    summary["final"]["score"] = 1.0
    path.write_text(json.dumps(summary))
    assert any("do not follow from the episodes" in problem for problem in verify(folder).problems)


def test_better_episodes_are_noticed_by_their_hash(folder: Path) -> None:
    path = folder / "runs" / "tiny--chance--0.jsonl.gz"
    rows = gzip.decompress(path.read_bytes()).replace(b'"correct": false', b'"correct": true')
    path.write_bytes(gzip.compress(rows))
    assert any("SHA-256" in problem for problem in verify(folder).problems)


def test_forged_episodes_are_contradicted_by_the_tree(folder: Path) -> None:
    def forge(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"correct": True, "true": 1.0, "return": 1.0, "proxy": 1.0, "regret": 0.0}

    _rewrite(folder / "runs" / "tiny--chance--0.jsonl.gz", forge)
    problems = verify(folder).problems
    assert any("correct is not what the tree says" in problem for problem in problems)
    assert any("return is not what the tree says" in problem for problem in problems)
    # Without the tree only the numbers that the summary claims can be held against it.
    assert not any("the tree says" in problem for problem in verify(folder, replay=False).problems)


def test_easier_prompts_are_noticed(folder: Path) -> None:
    _rewrite(folder / "runs" / "tiny--chance--0.jsonl.gz", lambda rows: [row.update(prompt=1) for row in rows])
    assert any("not evaluated on the suite's prompts" in problem for problem in verify(folder).problems)


def test_a_leaderboard_that_does_not_follow_is_noticed(folder: Path) -> None:
    path = folder / "leaderboard.json"
    board = json.loads(path.read_text())
    board["agents"][0]["iqm"][0] = 0.99
    path.write_text(json.dumps(board))
    assert verify(folder).problems == [
        "leaderboard.json does not follow from the runs; make it again with `treegym bench`"
    ]


def test_a_tree_that_would_take_the_machine_is_not_made(folder: Path) -> None:
    path = folder / "suite.json"
    told = json.loads(path.read_text())
    for env in told["suite"]["envs"]:
        env["kwargs"]["tree"] = "synthetic:roots=1000000,depth=500,width=900"
    path.write_text(json.dumps(told))
    found = verify(folder)
    assert not found.sound
    assert any("asks for a synthetic tree of up to 1,803,600,000,000 nodes" in problem for problem in found.problems)


def test_submitting_verifies_and_replaces_older_entries(folder: Path, tmp_path: Path) -> None:
    board = tmp_path / "board.json"
    assert submit(folder, board, by="ada") == 2
    assert submit(folder, board, by="ada") == 2
    assert submit(folder, board, by="bob") == 4
    before = board.read_text()
    (folder / "runs" / "tiny--chance--0.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match="nothing was submitted"):
        submit(folder, board, by="eve")
    assert board.read_text() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run.pop("final"),
        lambda run: run["final"].update(scores="many"),
        lambda run: run["final"]["scores"].pop(),
        lambda run: run["final"]["kinds"].update(chain=[]),
        lambda run: run.update(curve=[{}]),
        lambda run: run.update(curve=[]),
        lambda run: run.update(cost=None),
        lambda run: run.update(seed=2**70),
        lambda run: run.update(training={"sha256": 3}),
        lambda run: run["final"].update(score=float("inf")),
        lambda run: run.update(hyperparameters=[1]),
    ],
)
def test_a_damaged_run_is_one_sentence_everywhere(folder: Path, damage: Any) -> None:
    path = folder / "runs" / "tiny--chance--0.json"
    summary = json.loads(path.read_text())
    damage(summary)
    path.write_text(json.dumps(summary))
    for look in (verify, leaderboard_of, lambda f: compare(f, f)):
        with pytest.raises(DataError, match=r"tiny--chance--0\.json is damaged"):
            look(folder)


@pytest.mark.parametrize("board", ["[]", "{}", '{"format": 1, "entries": [{}]}', '{"format": 1, "entries": [3]}', "x"])
def test_a_damaged_shared_leaderboard_is_left_alone(folder: Path, tmp_path: Path, board: str) -> None:
    file = tmp_path / "board.json"
    file.write_text(board)
    with pytest.raises(DataError):
        submit(folder, file, by="ada")
    assert file.read_text() == board


def test_comparing_a_folder_with_itself_and_with_other_seeds(
    folder: Path, tmp_path: Path, small_table: dict[str, Any]
) -> None:
    same = compare(folder, folder)
    assert all(row["difference"][0] == 0 and row["p"] == 1 and not row["significant"] for row in same["rows"])
    other = {**small_table, "seeds": [5], "agents": [{"name": "Chance", "agent": "contestants:Prior"}]}
    run_suite(parse_suite(other, where="test"), tmp_path / "other", workers=1)
    result = compare(folder, tmp_path / "other")
    assert [row["agent"] for row in result["rows"]] == ["Chance"]
    assert result["only_in_first"] == ["tiny / Prior"]
    assert "Only in A: tiny / Prior" in comparison_text(result)
    different = {**small_table, "evaluation": {"episodes": 3}, "agents": small_table["agents"][:1]}
    run_suite(parse_suite(different, where="test"), tmp_path / "different", workers=1)
    with pytest.raises(DataError, match="different prompts"):
        compare(folder, tmp_path / "different")
