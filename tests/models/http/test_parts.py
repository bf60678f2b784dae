"""The client's parts, one by one: retries, limits, usage, journal, reading of answers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treegym.errors import ConfigError, DataError
from treegym.models.local.fake import FakeTokenizer
from treegym.models.remote.answers import UNKNOWN, MalformedAnswer, Vocabulary, logprob, parse, read_choices
from treegym.models.remote.journal import Journal
from treegym.models.remote.pacing import Allowance, Limits, Prices, RetryPolicy, Usage, retry_after_seconds


class TestRetry:
    def test_waits_double_up_to_the_longest_and_half_of_them_is_jitter(self):
        policy = RetryPolicy(first_wait_s=1.0, longest_wait_s=8.0)
        for attempt, whole in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (500, 8.0)):
            waits = [policy.wait(attempt, None, random.Random(seed)) for seed in range(50)]
            assert min(waits) >= whole / 2
            assert max(waits) <= whole
            assert len(set(waits)) > 40

    def test_a_server_that_asks_for_more_gets_more(self):
        assert RetryPolicy().wait(1, 60.0, random.Random(0)) == 60.0

    @pytest.mark.parametrize("arguments", [{"attempts": 0}, {"first_wait_s": -1.0}, {"longest_wait_s": 0.1}])
    def test_impossible_policies_are_refused(self, arguments):
        with pytest.raises(ConfigError, match="attempts"):
            RetryPolicy(**arguments)

    def test_retry_after_in_seconds_as_a_date_or_unreadable(self):
        assert retry_after_seconds("7") == 7.0
        assert retry_after_seconds("-3") == 0.0
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
        told = retry_after_seconds(email.utils.format_datetime(soon, usegmt=True))
        assert told is not None
        assert 80 < told < 91
        for unreadable in (None, "soon", "nan", "inf", ""):
            assert retry_after_seconds(unreadable) is None


class TestLimits:
    def test_units_flow_in_evenly(self):
        # 120 a minute are 2 a second, and a second's worth may be spent at once: requests at the time 0 wait
        # 0, 0, then 1/2, 1, 3/2 s; two seconds later 4 units have flowed in, which pays the debt of 3 and leaves 1.
        allowance = Allowance(120.0)
        assert [allowance.take(1, 0.0) for _ in range(5)] == [0.0, 0.0, 0.5, 1.0, 1.5]
        assert [allowance.take(1, 2.0) for _ in range(2)] == [0.0, 0.5]

    def test_zero_is_no_rate(self):
        with pytest.raises(ConfigError, match="above 0"):
            Limits(requests_per_minute=0)

    def test_requests_wait_for_their_turn_and_for_a_pause(self):
        async def work():
            limits = Limits(requests_per_minute=60 * 20)  # 20 a second and 20 at once
            started = time.monotonic()
            for _ in range(22):
                await limits.enter(0)
            limited = time.monotonic() - started
            limits.pause(0.1)
            started = time.monotonic()
            await limits.enter(0)
            return limited, time.monotonic() - started

        limited, paused = asyncio.run(work())
        assert limited >= 0.09  # two beyond the burst: 1/20 s each
        assert paused >= 0.09


def test_usage_takes_the_servers_numbers_and_estimates_where_there_are_none():
    usage = Usage(prices=Prices(prompt=1.0, completion=4.0))
    usage.answered({"usage": {"prompt_tokens": 10, "completion_tokens": 5}}, about_prompt=99, about_completion=99)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (10, 5, False)
    for damaged in ({}, {"usage": None}, {"usage": {"prompt_tokens": -4, "completion_tokens": True}}):
        usage.answered(damaged, about_prompt=1, about_completion=2)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (13, 11, True)
    assert usage.cost == pytest.approx((13 * 1 + 11 * 4) / 1e6)


class TestJournal:
    def test_answers_survive_and_are_found_by_request(self, tmp_path):
        with Journal(tmp_path / "j") as journal:
            journal.put("chat", {"a": 1}, {"x": [1.5, None]})
            assert journal.get("chat", {"a": 2}) is None
            assert journal.get("completions", {"a": 1}) is None
        with Journal(tmp_path / "j") as journal:
            assert len(journal) == 1
            assert journal.get("chat", {"a": 1}) == {"x": [1.5, None]}

    @pytest.mark.parametrize("lost", [1, 5, 30])
    def test_a_line_torn_by_a_kill_is_dropped_and_written_over(self, tmp_path, lost):
        path = tmp_path / "j"
        with Journal(path) as journal:
            journal.put("chat", {"a": 1}, "first")
            journal.put("chat", {"a": 2}, "second")
        path.write_bytes(path.read_bytes()[:-lost])
        with Journal(path) as journal:
            assert (journal.get("chat", {"a": 1}), journal.get("chat", {"a": 2})) == ("first", None)
            journal.put("chat", {"a": 2}, "again")
        with Journal(path) as journal:
            assert journal.get("chat", {"a": 2}) == "again"

    def test_damage_in_the_middle_is_an_error(self, tmp_path):
        path = tmp_path / "j"
        with Journal(path) as journal:
            journal.put("chat", {"a": 1}, "first")
            journal.put("chat", {"a": 2}, "second")
        raw = bytearray(path.read_bytes())
        raw[20] ^= 1
        path.write_bytes(raw)
        with pytest.raises(DataError, match="line 1 is damaged"):
            Journal(path)

    def test_an_interrupted_batch_goes_on_where_it_stopped(self, tmp_path, proxy, fake, contexts, quick):
        from treegym.errors import BackendError
        from treegym.models.remote import RemoteModel

        allowed = 2
        script_count = 0

        def script(number, path):
            nonlocal script_count
            if not path.endswith("/completions") or not armed:
                return ""
            script_count += 1
            return "" if script_count <= allowed else "close"

        armed = False
        made = proxy(script)

        def model(journal):
            return RemoteModel(
                made.url, tokenizer=fake.tokenizer, prompts_per_request=1, retry=quick, journal=journal, concurrency=1
            )

        with Journal(tmp_path / "j") as journal:
            remote = model(journal)
            remote.fingerprint()
            armed = True
            with pytest.raises(BackendError, match="what was finished is kept"):
                remote.generate(contexts, max_new_tokens=5)
        armed = False
        with Journal(tmp_path / "j") as journal:
            assert len(journal) == allowed
            remote = model(journal)
            remote.fingerprint()
            before = remote.usage.requests
            assert remote.generate(contexts, max_new_tokens=5) == fake.generate(contexts, max_new_tokens=5)
            assert remote.usage.requests - before == len(contexts) - allowed


class TestReading:
    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=200))
    def test_bytes_are_an_object_or_malformed(self, raw):
        with contextlib.suppress(MalformedAnswer):
            assert isinstance(parse(raw), dict)

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["index", "text", "logprobs", "tokens", "token_logprobs", "top_logprobs", "content", "id"]
                )
                | st.text(max_size=4),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )

    @settings(max_examples=150, deadline=None)
    @given(st.lists(json_values, max_size=3), st.integers(0, 3))
    def test_choices_of_any_shape_are_read_or_malformed(self, choices, expected):
        try:
            read = read_choices({"choices": choices}, expected, Vocabulary(FakeTokenizer()))
        except MalformedAnswer:
            return
        assert len(read) == expected
        for choice in read:
            assert len(choice.tokens) == len(choice.logprobs) == len(choice.tops)
            assert all(value is None or value <= 0 for value in choice.logprobs)

    def test_log_probabilities(self):
        assert logprob(-1) == -1.0
        assert logprob(1e-6) == 0.0  # rounding may lift a certain token a little
        assert logprob(-1e300) == -1e4
        for bad in (None, True, "x", float("nan"), 0.5, 10**400):
            with pytest.raises(MalformedAnswer):
                logprob(bad)

    def test_tokens_by_id_text_and_bytes(self):
        class Tokenizer(FakeTokenizer):
            def pieces(self):
                return [b"", b"", b"a", b"b", b"b", "ä".encode(), b"\xe2"]

        vocabulary = Vocabulary(Tokenizer("abcde"))
        assert vocabulary.of_text("token_id:3") == 3
        assert vocabulary.of_text("a") == 2
        assert vocabulary.of_text("b") == UNKNOWN  # two tokens write it
        assert vocabulary.of_text("ä") == 5
        assert vocabulary.of_text("bytes:\\xe2") == 6
        assert vocabulary.of_text("") == 1  # the end, which servers do not print
        assert vocabulary.of_object({"token": "?", "bytes": [0xE2]}) == 6
        assert vocabulary.of_object({"token": "?", "id": 4}) == 4
        with pytest.raises(MalformedAnswer, match="ends at 6"):
            vocabulary.of_text("token_id:7")

    def test_the_newer_form_of_log_probabilities(self):
        vocabulary = Vocabulary(FakeTokenizer("ab"))
        entry = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}
        answer = {"choices": [{"index": 0, "text": "a", "logprobs": {"content": [entry]}}]}
        [choice] = read_choices(answer, 1, vocabulary)
        assert (choice.tokens, choice.logprobs, choice.tops) == ([2], [-0.5], [{3: -1.5}])
