"""Item 7: who holds a folder is named; a second run is refused, and a dead one stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.locks import LOCK, held

HOLD = """
import sys, time
from treegym.locks import held
with held(sys.argv[1], what="the folder"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_one_is_refused_by_name_and_a_dead_one_stops_nobody(tmp_path: Path) -> None:
    with holder(tmp_path / LOCK) as process:
        with pytest.raises(ConfigError, match=f"in use by process {process.pid} on "), held(tmp_path / LOCK, what="it"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK).exists()  # what it left
    with held(tmp_path / LOCK, what="it"):
        pass
    assert not (tmp_path / LOCK).exists()


def test_without_locks_of_the_file_system_host_and_process_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treegym.locks._locked", lambda handle: None)
    (tmp_path / LOCK).write_text('{"host": "elsewhere", "process": 5}')
    with pytest.raises(ConfigError, match="process 5 on elsewhere"), held(tmp_path / LOCK, what="it"):
        pass
    for stale in ("", "nonsense", '{"host": 1}', f'{{"host": "{os.uname().nodename}", "process": 4194999}}'):
        (tmp_path / LOCK).write_text(stale)
        with held(tmp_path / LOCK, what="it"):
            pass


@pytest.mark.parametrize(
    ("words", "lock"),
    [
        (["train", "ppo", "--env", "TokenTree-v0", "--out", "{}", "--steps", "8"], LOCK),
        (["bench", "--suite", "quick", "--out", "{}"], LOCK),
        (["iterate", "--out", "{}", "--rounds", "1"], LOCK),
        (["optimize", "zoo:mlp/0", "--no-history", "--out", "{}"], LOCK),
        (["grow", "--prompts", "bundled:train=1,test=1", "--out", "{}/x.tree", "--quiet"], ".x.tree.lock"),
    ],
    ids=["train", "bench", "iterate", "optimize", "grow"],
)
def test_two_commands_never_share_a_folder(tmp_path: Path, words: list[str], lock: str, capsys: Any) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with holder(folder / lock) as process:
        before = sorted(folder.iterdir())
        code = main([word.format(folder) for word in words])
        said = capsys.readouterr().err
        process.kill()
    assert code == 1
    assert f"in use by process {process.pid}" in said
    left = [path for path in sorted(folder.iterdir()) if path.name not in ("suite.json", "runs", "chain.jsonl")]
    assert left == before
