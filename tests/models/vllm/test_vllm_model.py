"""VllmModel inside a real vLLM: agreement with transformers, and weights replaced in place."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from treegym.files import read_arrays
from treegym.models.loading import load_model
from treegym.models.local.logprob_states import logprob_states
from treegym.models.tree_scores import Branches, score_trees_naively

from .conftest import ROOT
from .in_process import CONTINUATIONS, TEXTS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def said(environment, random_model, other_model, tmp_path_factory):
    """What the model said inside vLLM's environment: arrays, and the rest as JSON."""
    out = tmp_path_factory.mktemp("out") / "said.safetensors"
    script = Path(__file__).with_name("in_process.py")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "VLLM_TARGET_DEVICE": "cpu"}
    variables |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [str(environment / "bin" / "python"), str(script), str(random_model), str(other_model), str(out)]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    arrays, metadata = read_arrays(out)
    return arrays, json.loads(metadata["told"])


@pytest.fixture(scope="module")
def own(random_model):
    return load_model(str(random_model), device="cpu")


@pytest.fixture(scope="module")
def contexts(own):
    return [own.tokenizer.encode(text) for text in TEXTS]


def test_log_probabilities_agree_to_a_thousandth(said, own, contexts):
    np.testing.assert_allclose(said[0]["next"], own.next_logprobs(contexts), atol=1e-3)
    np.testing.assert_allclose(said[0]["top_values"], own.top_logprobs(contexts, 6)[1], atol=1e-3)
    np.testing.assert_array_equal(said[0]["top_ids"], own.top_logprobs(contexts, 6)[0])


def test_scores_agree_to_a_thousandth(said, own, contexts):
    continuations = [own.tokenizer.encode(text) for text in CONTINUATIONS]
    np.testing.assert_allclose(said[0]["score"], np.concatenate(own.score(contexts, continuations)), atol=1e-3)


def test_greedy_answers_are_the_same_and_samples_follow_their_seed(said, own, contexts):
    assert said[1]["greedy"] == own.generate(contexts, max_new_tokens=24)
    first, again, other = said[1]["sampled"]
    assert first == again
    assert first != other
    assert len({tuple(row) for row in first}) > 1
    assert said[1]["empty"] == [[], 0]


def test_trees_agree_with_the_definition(said, own, contexts):
    tree = Branches(tuple(contexts[0]), np.array([3, 4, 5], np.int32), np.array([-1, 0, 0], np.int32))
    [scores] = score_trees_naively(own, [tree], best=3, worst=2)
    np.testing.assert_allclose(said[0]["tree_logp"], scores.logp, atol=1e-3)
    np.testing.assert_array_equal(said[0]["tree_best"], scores.best_ids)
    np.testing.assert_array_equal(said[0]["tree_worst"], scores.worst_ids)
    states = logprob_states(own.next_logprobs([tree.context(node) for node in range(-1, 3)]))
    np.testing.assert_allclose(said[0]["states"], states, atol=5e-3)


def test_weights_are_replaced_in_place_and_cached_prefixes_dropped(said, other_model, contexts):
    replaced = load_model(str(other_model), device="cpu").next_logprobs(contexts)
    assert np.abs(said[0]["next"] - replaced).max() > 0.5
    np.testing.assert_allclose(said[0]["next_updated"], replaced, atol=1e-3)
    np.testing.assert_allclose(said[0]["next_back"], said[0]["next"], atol=1e-4)
    assert said[1]["fingerprint"] != said[1]["fingerprint_updated"]
