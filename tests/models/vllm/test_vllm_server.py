"""RemoteModel against a real vLLM server: the same numbers, the same tree, and an end that is survived."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.models.remote import RemoteModel, RetryPolicy
from treegym.models.remote.dialect import DifferentModel
from treegym.tree.token_tree import Root

from .conftest import start, stop, wait_ready

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TEXTS = ("12+3=", "ny", "7*8", "0", "1234567890+1234567890=", "9-9=0.")
SETTINGS = GrowSettings(mode="mixed", right=5, wrong=4, max_children=6, max_tokens=8, max_nodes=60, shard=4)
PROMPTS = [Root(prompt=f"{a}+{a + 1}=", answer=str(2 * a + 1)) for a in range(10)]


@pytest.fixture(scope="module")
def remote(vllm_server, here):
    return RemoteModel(vllm_server["url"], tokenizer=here.tokenizer, embedder=here, name=here.name)


@pytest.fixture(scope="module")
def contexts(here):
    return [here.tokenizer.encode(text) for text in TEXTS]


def test_vllm_speaks_the_richest_dialect(remote, here):
    dialect = remote.dialect
    assert (dialect.ids, dialect.extras, dialect.batch) == (True, True, True)
    assert dialect.logprobs == here.tokenizer.vocab_size
    assert dialect.echo in (0, 1)


def test_log_probabilities_agree_to_a_thousandth(remote, here, contexts):
    np.testing.assert_allclose(remote.next_logprobs(contexts), here.next_logprobs(contexts), atol=1e-3)
    ids, values = remote.top_logprobs(contexts, 6)
    np.testing.assert_allclose(values, here.top_logprobs(contexts, 6)[1], atol=1e-3)
    whole = here.next_logprobs(contexts)
    np.testing.assert_allclose(np.take_along_axis(whole, ids.astype(np.int64), 1), values, atol=1e-3)


def test_scores_agree_to_a_thousandth(remote, here, contexts):
    continuations = [here.tokenizer.encode(text) for text in ("15.", "n", "", "1", "2469", "y")]
    for told, own in zip(remote.score(contexts, continuations), here.score(contexts, continuations), strict=True):
        np.testing.assert_allclose(told, own, atol=1e-3)


def test_greedy_answers_are_the_same(remote, here, contexts):
    assert remote.generate(contexts, max_new_tokens=24) == here.generate(contexts, max_new_tokens=24)


def test_samples_follow_their_seed(remote, contexts):
    asked = [contexts[0]] * 4
    first = remote.generate(asked, max_new_tokens=10, temperature=1.5, seed=1)
    assert first == remote.generate(asked, max_new_tokens=10, temperature=1.5, seed=1)
    assert len({tuple(row) for row in first}) > 1


def compare(one, other):
    """Asserts that two trees are equal up to rounding."""
    np.testing.assert_array_equal(one.token, other.token)
    np.testing.assert_array_equal(one.parent, other.parent)
    np.testing.assert_array_equal(one.proposers, other.proposers)
    np.testing.assert_array_equal(one.flags, other.flags)
    np.testing.assert_allclose(one.prior, other.prior, atol=1e-3)
    np.testing.assert_allclose(one.similarity.astype(np.float32), other.similarity.astype(np.float32), atol=2e-3)


def test_a_tree_grown_through_vllm_is_the_tree_grown_at_home(remote, here, tmp_path):
    through = grow(PROMPTS, primary=remote, teachers=[], out=tmp_path / "vllm.tree", settings=SETTINGS)
    home = grow(PROMPTS, primary=here, teachers=[], out=tmp_path / "home.tree", settings=SETTINGS)
    assert home.size > 200
    compare(through, home)


def test_a_killed_vllm_that_comes_back_changes_nothing(vllm_server, environment, here, tmp_path):
    """SIGKILL in the middle of a growth; the client waits, the server is started again, the tree is the same."""
    patient = RetryPolicy(attempts=400, first_wait_s=0.2, longest_wait_s=1.0)
    remote = RemoteModel(
        vllm_server["url"],
        tokenizer=here.tokenizer,
        embedder=here,
        name=here.name,
        retry=patient,
        prompts_per_request=4,
    )
    remote.fingerprint()
    begun = remote.usage.requests
    result = {}

    def work():
        result["tree"] = grow(PROMPTS, primary=remote, teachers=[], out=tmp_path / "killed.tree", settings=SETTINGS)

    thread = threading.Thread(target=work)
    thread.start()
    while remote.usage.requests < begun + 30 and thread.is_alive():
        time.sleep(0.005)
    assert thread.is_alive()
    stop(vllm_server["process"], signal.SIGKILL)
    vllm_server["process"] = start(environment, vllm_server["model"], vllm_server["port"], vllm_server["log"])
    wait_ready(vllm_server["process"], vllm_server["port"], vllm_server["log"])
    thread.join(300)
    assert not thread.is_alive()
    assert remote.usage.failures > 0
    home = grow(PROMPTS, primary=here, teachers=[], out=tmp_path / "home.tree", settings=SETTINGS)
    compare(result["tree"], home)


def test_another_model_behind_the_same_url_is_noticed(vllm_server, environment, here, other_model, contexts):
    remote = RemoteModel(vllm_server["url"], tokenizer=here.tokenizer)
    first = remote.fingerprint()
    assert RemoteModel(vllm_server["url"], tokenizer=here.tokenizer).fingerprint() == first
    remote.next_logprobs(contexts)
    stop(vllm_server["process"])
    vllm_server["process"] = start(environment, other_model, vllm_server["port"], vllm_server["log"])
    wait_ready(vllm_server["process"], vllm_server["port"], vllm_server["log"])
    with pytest.raises(DifferentModel, match="another model answers"):
        remote.next_logprobs(contexts)
    remote.renewed()
    assert remote.fingerprint() != first
