from __future__ import annotations

import json
from pathlib import Path

import pytest

from treegym.__main__ import main


def test_list_names_the_bundled_suites(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "list"]) == 0
    assert "quick" in capsys.readouterr().out
    assert main(["bench", "list", "--json"]) == 0
    assert {"quick", "full"} <= set(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "compare", "a"], "bench compare takes two paths, and 1 came"),
        (["bench", "verify"], "bench verify takes one result folder, and 0 came"),
        (["bench", "verify", "/nowhere"], "is not a result folder"),
        (["bench", "--suite", "quik"], "Did you mean 'quick'"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
