"""RemoteModel against the project's own server: the same answers as the model itself, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.envs.token_tree.grow.voices import growth_mode
from treegym.errors import BackendError, ConfigError
from treegym.models.base import LanguageModel
from treegym.models.connect import connect
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.remote import RemoteModel
from treegym.models.tree_scores import Branches, score_trees, score_trees_naively


@pytest.fixture
def remote(server, fake) -> RemoteModel:
    return RemoteModel(server, tokenizer=fake.tokenizer)


def test_it_fits_the_protocol(remote):
    assert isinstance(remote, LanguageModel)


def test_the_dialect_of_our_own_server_is_the_richest(remote, fake):
    dialect = remote.dialect
    assert (dialect.ids, dialect.extras, dialect.batch, dialect.echo) == (True, True, True, 0)
    assert dialect.logprobs == fake.tokenizer.vocab_size


def test_log_probabilities_are_those_of_the_model(remote, fake, contexts):
    np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))
    ids, values = remote.top_logprobs(contexts, 7)
    own_ids, own_values = fake.top_logprobs(contexts, 7)
    np.testing.assert_array_equal(ids, own_ids)
    np.testing.assert_array_equal(values, own_values)


def test_scores_are_those_of_the_model(remote, fake, contexts):
    continuations = [fake.tokenizer.encode(text) for text in ("15", "", "56.", "a", "1")]
    for told, own in zip(remote.score(contexts, continuations), fake.score(contexts, continuations), strict=True):
        assert told.dtype == np.float32
        np.testing.assert_array_equal(told, own)


@pytest.mark.parametrize("prompts_per_request", [1, 2, 32])
def test_greedy_continuations_do_not_depend_on_batching(server, fake, contexts, prompts_per_request):
    remote = RemoteModel(server, tokenizer=fake.tokenizer, prompts_per_request=prompts_per_request)
    assert remote.generate(contexts, max_new_tokens=20) == fake.generate(contexts, max_new_tokens=20)


def test_stop_tokens_end_a_continuation_and_stand_in_it(remote, fake, contexts):
    own = fake.generate(contexts, max_new_tokens=20)
    stop = own[0][1]
    told = remote.generate(contexts, max_new_tokens=20, stop_ids=[stop])
    assert told == fake.generate(contexts, max_new_tokens=20, stop_ids=[stop])
    assert told[0][-1] == stop


def test_samples_follow_their_seed_and_rows_differ(remote, contexts):
    same = [contexts[0]] * 6
    first = remote.generate(same, max_new_tokens=12, temperature=1.5, seed=4)
    assert first == remote.generate(same, max_new_tokens=12, temperature=1.5, seed=4)
    assert first != remote.generate(same, max_new_tokens=12, temperature=1.5, seed=5)
    assert len({tuple(row) for row in first}) > 1


def test_embeddings_and_the_fingerprint_are_the_models(remote, fake, contexts):
    np.testing.assert_array_equal(remote.embed(contexts), fake.embed(contexts))
    assert remote.fingerprint() == fake.fingerprint()


def test_trees_score_as_the_definition_says(remote, fake):
    trees = [
        Branches((5, 6), np.array([7, 8, 9, 1], np.int32), np.array([-1, -1, 0, 2], np.int32)),
        Branches((4,), np.array([3], np.int32), np.array([-1], np.int32)),
    ]
    told = score_trees(remote, trees, best=5, worst=4, hidden=True)
    for one, own in zip(told, score_trees_naively(fake, trees, best=5, worst=4, hidden=True), strict=True):
        for name in ("logp", "best_ids", "best_logp", "worst_ids", "worst_logp", "hidden"):
            np.testing.assert_array_equal(getattr(one, name), getattr(own, name))


def test_an_empty_batch_is_an_empty_answer(remote, fake):
    assert remote.next_logprobs([]).shape == (0, fake.tokenizer.vocab_size)
    assert remote.generate([], max_new_tokens=3) == []
    assert remote.score([], []) == []


def test_an_empty_context_is_refused_here(remote):
    with pytest.raises(ConfigError, match="context is empty"):
        remote.next_logprobs([[]])


def test_another_tokenizer_is_noticed(server):
    from treegym.models.tokens.char_tokenizer import CharTokenizer

    with pytest.raises(ConfigError, match="another tokenizer"):
        RemoteModel(server, tokenizer=CharTokenizer()).fingerprint()


def test_a_wrong_model_name_gets_a_suggestion(server, fake):
    with pytest.raises(ConfigError, match="Did you mean 'fake'"):
        RemoteModel(server, tokenizer=fake.tokenizer, model="fakke").fingerprint()


def test_usage_and_cost_add_up(server, fake, contexts):
    from treegym.models.remote import Endpoint, Prices

    endpoint = Endpoint(server, prices=Prices(prompt=2.0, completion=10.0))
    remote = RemoteModel(endpoint, tokenizer=fake.tokenizer)
    remote.fingerprint()
    before = endpoint.usage.summary()
    made = remote.generate(contexts, max_new_tokens=6)
    after = endpoint.usage.summary()
    assert after["requests"] == before["requests"] + 1
    assert after["prompt_tokens"] - before["prompt_tokens"] == sum(len(c) for c in contexts)
    assert after["completion_tokens"] - before["completion_tokens"] == sum(len(row) for row in made)
    # 2 and 10 a million tokens
    assert after["cost"] == pytest.approx((after["prompt_tokens"] * 2 + after["completion_tokens"] * 10) / 1e6)


def test_an_address_names_everything(server, fake, contexts):
    remote = connect(f"{server}#name=served&concurrency=2&prompts_per_request=3", tokenizer=fake.tokenizer)
    assert isinstance(remote, RemoteModel)
    assert remote.name == "served"
    assert remote.endpoint.concurrency == 2
    np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))


@pytest.mark.parametrize("address", ["http://h/v1#key=sk-secret", "http://h/v1#concurrency=sk-secret"])
def test_a_wrong_address_is_a_sentence(address, fake):
    with pytest.raises(ConfigError, match="address") as caught:
        connect(address, tokenizer=fake.tokenizer)
    assert "sk-secret" not in str(caught.value)


class TestServersThatTellLittle:
    """Servers are made poor by a proxy that takes things out of the answers."""

    @staticmethod
    def _poor(proxy, keep: int):
        def change(answer):
            for choice in answer.get("choices", []):
                if choice.get("logprobs") is None:
                    continue
                if keep == 0:
                    choice["logprobs"] = None
                else:
                    rows = choice["logprobs"]["top_logprobs"]
                    choice["logprobs"]["top_logprobs"] = [row and dict(list(row.items())[:keep]) for row in rows]
            return answer

        return proxy(lambda number, path: change if "completions" in path else "")

    def test_few_log_probabilities_are_noticed(self, proxy, fake, contexts, quick):
        remote = RemoteModel(self._poor(proxy, 5).url, tokenizer=fake.tokenizer, retry=quick)
        assert remote.dialect.logprobs == 5
        np.testing.assert_array_equal(remote.top_logprobs(contexts, 5)[0], fake.top_logprobs(contexts, 5)[0])
        with pytest.raises(BackendError, match="asked for 6"):
            remote.top_logprobs(contexts, 6)

    def test_growth_falls_back_to_answers_with_a_notice(self, proxy, fake, quick):
        few = RemoteModel(self._poor(proxy, 5).url, tokenizer=fake.tokenizer, retry=quick)
        none = RemoteModel(self._poor(proxy, 0).url, tokenizer=fake.tokenizer, retry=quick)
        assert growth_mode(few, "mixed", proposals=20) == (
            "answers",
            "fake gives only 5 log-probabilities per position, growth mode 'mixed' needs 20: growing 'answers' instead",
        )
        mode, notice = growth_mode(none, "step", proposals=20)
        assert mode == "answers"
        assert "no log-probabilities" in str(notice)
        assert growth_mode(few, "mixed", proposals=5) == ("mixed", None)
        assert growth_mode(fake, "mixed", proposals=20) == ("mixed", None)

    def test_trees_are_scored_as_far_as_it_goes(self, proxy, fake, quick):
        tree = Branches((5, 6), np.array([7, 8], np.int32), np.array([-1, 0], np.int32))
        none = RemoteModel(self._poor(proxy, 0).url, tokenizer=fake.tokenizer, retry=quick)
        with pytest.warns(UserWarning, match="gives 0 log-probabilities"):
            [scores] = none.score_trees([tree], best=4, worst=4)
        assert np.isnan(scores.logp).all()
        assert scores.best_ids.shape == scores.worst_ids.shape == (3, 0)
        few = RemoteModel(self._poor(proxy, 5).url, tokenizer=fake.tokenizer, retry=quick)
        with pytest.warns(UserWarning, match="gives 5 log-probabilities"):
            [scores] = few.score_trees([tree], best=8, worst=4)
        [own] = score_trees_naively(fake, [tree], best=5)
        np.testing.assert_array_equal(scores.logp, own.logp)
        assert scores.best_ids.shape == (3, 5)

    def test_likely_tokens_are_those_that_may_stand_in_a_tree(self, server, fake):
        """Paths are scored leaf by leaf, and padding, which a server ranks like any token, is taken out."""
        tree = Branches((5, 6), np.array([7, 8, 9, 7], np.int32), np.array([-1, 0, 0, 2], np.int32))
        [told] = RemoteModel(server, tokenizer=fake.tokenizer).score_trees([tree], best=fake.tokenizer.vocab_size)
        [own] = score_trees_naively(fake, [tree], best=fake.tokenizer.vocab_size)
        np.testing.assert_allclose(told.logp, own.logp, atol=1e-6)
        kept = own.best_ids.shape[1]
        assert kept == fake.tokenizer.vocab_size - 1
        np.testing.assert_array_equal(told.best_ids[:, :kept], own.best_ids)
        np.testing.assert_allclose(told.best_logp[:, :kept], own.best_logp, atol=1e-6)
        assert (told.best_ids[:, kept:] == -1).all()

    def test_answers_are_read_from_text_where_tokens_are_not_told(self, proxy, fake, contexts, quick):
        def change(answer):
            for choice in answer.get("choices", []):
                choice["logprobs"] = None
                choice.pop("token_ids", None)
            return answer

        poor = proxy(lambda number, path: change if "completions" in path else "")
        remote = RemoteModel(poor.url, tokenizer=fake.tokenizer, retry=quick)
        assert remote.generate(contexts, max_new_tokens=20) == fake.generate(contexts, max_new_tokens=20)


def test_a_model_without_weights_given_cannot_be_made_from_another_fake(server, contexts):
    """The comparison above could not pass by accident: another seed answers otherwise."""
    other = FakeLanguageModel(seed=4)
    remote = RemoteModel(server, tokenizer=other.tokenizer)
    assert np.abs(remote.next_logprobs(contexts) - other.next_logprobs(contexts)).max() > 0.1
