from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from treegym.__main__ import main
from treegym.commands import doctor
from treegym.registration import ENVS


def test_envs_lists_every_id_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ENVS)
    assert all(len(line.split()) > 3 for line in lines)
    assert main(["envs", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(ENVS)


def test_doctor_names_what_is_missing_and_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "vllm" else real(name))
    found = doctor.examine()
    assert found["extras"]["vllm"]["missing"] == ["vllm"]
    text = doctor.as_text(found)
    assert 'lacks vllm: pip install "treegym[vllm]"' in text
    assert f"{found['threads']['cores']} cores" in text
    assert set(found["extras"]) == set(doctor.EXTRAS)
    code = main(["doctor", "--json"])
    assert code == (0 if json.loads(capsys.readouterr().out)["healthy"] else 1)


def test_doctor_fails_without_a_package_that_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "numba" else real(name))
    assert main(["doctor"]) == 1
    assert "MISSING numba" in capsys.readouterr().out


def test_extras_are_those_of_the_package() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    offered = set(project["optional-dependencies"])
    assert set(doctor.EXTRAS) <= offered
    assert offered - set(doctor.EXTRAS) == {"dev"}


def test_completion_script_is_valid_bash(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["doctor", "--completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "bench" in script
    if shutil.which("bash"):
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_agents_of_installed_plugins_are_listed_and_describe_themselves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "careful-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: careful\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[treegym.agents]\ncareful = careful_agents:Careful\n")
    (tmp_path / "careful_agents.py").write_text(
        "class Careful:\n    def __init__(self, env, *, seed=0, depth=3): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["agents"]) == 0
    assert "plug-in: careful_agents:Careful" in capsys.readouterr().out
    assert main(["agents", "--switches", "careful", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"depth": 3}
    assert main(["agents", "--switches", "mcts", "--json"]) == 0
    assert "num_simulations" in json.loads(capsys.readouterr().out)
