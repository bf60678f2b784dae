from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treegym.bench.results import suite_from_json
from treegym.bench.suite import Job, bundled_suites, load_suite, parse_suite
from treegym.errors import ConfigError


def test_bundled_suites_load_and_every_part_has_a_name() -> None:
    suites = bundled_suites()
    assert {"quick", "full"} <= set(suites)
    for name, about in suites.items():
        suite = load_suite(name)
        assert about
        assert len({job.id for job in suite.jobs()}) == len(suite.envs) * len(suite.agents) * len(suite.seeds)


def test_jobs_and_suites_survive_json(small_table: dict[str, Any]) -> None:
    suite = parse_suite(small_table, where="test")
    job = suite.jobs()[0]
    again = Job.from_json(json.loads(json.dumps(job.as_json())))
    assert again == job
    assert again.fingerprint == job.fingerprint
    held = suite_from_json(json.loads(json.dumps(suite.as_json())), where="test")
    assert held == suite
    assert held.fingerprint == suite.fingerprint


def test_fingerprint_follows_every_setting_that_matters(small_table: dict[str, Any]) -> None:
    before = {job.id: job.fingerprint for job in parse_suite(small_table, where="test").jobs()}
    small_table["agents"][0]["kwargs"] = {"x": 1}
    after = {job.id: job.fingerprint for job in parse_suite(small_table, where="test").jobs()}
    changed = {job for job in before if before[job] != after[job]}
    assert changed == {"tiny--chance--0", "tiny--chance--1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bugdet": 1}, "unknown key 'bugdet'. Did you mean 'budget'"),
        ({"budget": {"env_stps": 1}}, "unknown key 'env_stps'"),
        ({"budget": {}}, "at least one of env_steps"),
        ({"budget": {"env_steps": -1}}, "must be a positive number, not -1"),
        ({"budget": {"env_steps": float("nan")}}, "must be a positive number, not nan"),
        ({"seeds": []}, "seeds must be a list"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"agents": []}, "at least one [[agents]]"),
        ({"agents": [{"name": "a"}]}, 'needs agent = "..."'),
        ({"agents": [{"agent": "a"}, {"agent": "A"}]}, "two agents share a name"),
        ({"agents": [{"agent": "a", "per_env": {"tniy": {}}}]}, "unknown env 'tniy'. Did you mean 'tiny'"),
        (
            {"envs": [{"name": "tiny", "id": "x", "metric": "corect"}]},
            "unknown metric 'corect'. Did you mean 'correct'",
        ),
        ({"envs": [{"name": "tiny", "id": "x", "scale": [1, 0]}]}, "scale must be [low, high]"),
        ({"envs": [{"name": "tiny", "id": "x", "kwargs": {"a": float("inf")}}]}, "finite numbers"),
        ({"checkpoints": 0}, "checkpoints must be an integer of at least 1"),
    ],
)
def test_what_is_wrong_is_said(small_table: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_suite({**small_table, **change}, where="suite x.toml")
    assert message in str(raised.value)
    assert str(raised.value).startswith("suite x.toml")
    assert "\n" not in str(raised.value)


def test_files_that_are_no_suites(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'quick'"):
        load_suite("quik")
    bad = tmp_path / "bad.toml"
    bad.write_text("name = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_suite(bad)
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_suite(bad)


def test_seeds_can_be_replaced() -> None:
    assert load_suite("quick", seeds=[7, 8]).seeds == (7, 8)
