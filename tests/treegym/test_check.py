"""check_suite can fail: for every point of the contract an environment that breaks just that is caught, and says so."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest

from treegym.check.suite import CheckFailed, check_suite

TREE = "synthetic:roots=40,depth=6,branching=5,width=4,seed=3"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(Path(__file__).parent)  # handed on to other processes, which import it by name
    gym.register(
        "Spoiled-v0",
        "spoiled:Spoiled",
        vector_entry_point="spoiled:SpoiledBatch",
        kwargs={"tree": TREE},
        disable_env_checker=True,
    )
    yield
    gym.registry.pop("Spoiled-v0")


def test_with_nothing_wrong_it_passes() -> None:
    assert len(check_suite("Spoiled-v0")) == 13


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("actions from 1", r"spaces: actions are Discrete\(16, start=1\)"),
        ("nested space", "spaces: observation 'more' is Dict, not a Box"),
        ("no bounds", "spaces: the bounds of observations are not finite"),
        ("wide mask", "not within the observation space"),
        ("masks of int8", r"action_masks\(\) returns int8"),
        ("other mask in info", r"info\['action_mask'\] and action_masks"),
        ("empty mask", "mask"),
        ("illegal raises", "ValueError: not allowed"),
        ("illegal moves", "an illegal action moved the environment"),
        ("unflagged", "an illegal action is not flagged"),
        ("all flagged", "a legal action is flagged"),
        ("numpy reward", "the reward is a float64, not a float"),
        ("numpy bool", "not a Python bool"),
        ("infinite reward", "the reward is inf|an illegal action earned inf"),
        ("out of bounds", "observation"),
        ("wide vector", "vector_reward'] is missing or not float32"),
        ("compute_reward", "compute_reward makes SB3"),
        ("reserved key", "info key 'episode' is reserved"),
        ("private key", "info key '_mine' is reserved"),
        ("changing type", r"info\['root'\] was <class 'str'>"),
        ("changing type inside", r"info\['more.a'\] was <class 'float'>"),
        ("changing shape", r"info\['more'\] was"),
        ("no success", "is_success"),
        ("shared mask", "share an array"),
        ("reused array", "was changed by a later one|not equivalent"),
        ("wall clock", "info are not equivalent for the same seed"),
        ("own randomness", "with the same seed walk differently|deterministic"),
        ("seed ignored", "seed"),
        ("cut at once", "truncated at its first step|truncates after 1 step"),
        ("closes once", "RuntimeError: closed already"),
        ("flat picture", "not uint8 HxWx3|render"),
        ("no frame rate", "render_fps"),
        ("batch pays otherwise", "vector_equals_single: lane 0: reward or ending differs"),
        ("batch seeds otherwise", "vector_equals_single: lane . of the batch sees something else"),
        ("batch reuses memory", "two steps of the batch share an array"),
        ("batch without masks", "without its mask '_root'"),
        ("batch resets at once", "NEXT_STEP|vector_equals_single"),
        ("batch without final", "final_info"),
        ("batch resets all", "reset_mask"),
        ("batch without limit", "max_episode_steps=2 does not end episodes"),
    ],
)
def test_a_broken_environment_is_caught_and_named(spoil: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=f"Spoiled-v0 fails the check of .*({message})"):
        check_suite("Spoiled-v0", spoil=spoil)


def test_an_entry_point_that_is_no_string() -> None:
    spoiled = importlib.import_module("spoiled")
    gym.register("Object-v0", spoiled.Spoiled, kwargs={"tree": TREE}, disable_env_checker=True)
    try:
        with pytest.raises(CheckFailed, match=r"spec: the entry point is .* not a string"):
            check_suite("Object-v0")
    finally:
        gym.registry.pop("Object-v0")


def test_keyword_arguments_that_are_not_json() -> None:
    with pytest.raises(CheckFailed, match=r"spec: .*JSON"):
        check_suite("Spoiled-v0", reward={"mine": lambda episode: 0.5, "verifier": 1.0})
