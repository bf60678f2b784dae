"""Continuous micro-batching: who shares a batch, when it starts, and what one failure does to the others."""

from __future__ import annotations

import concurrent.futures
import threading
import time

import numpy as np
import pytest

from treegym.errors import BackendError, ConfigError
from treegym.models.serving.batcher import Batcher, Full
from treegym.models.serving.jobs import Job


def job(prompt, max_tokens=5, **arguments):
    return Job(prompt=list(prompt), max_tokens=max_tokens, stop_ids=frozenset({1}), **arguments)


def tokens(finished):
    return [position.token for position in finished.done.result(30).generated]


@pytest.fixture
def batcher(slow):
    made = Batcher(slow, max_batch_size=4, max_wait_ms=0.0, max_queue=16)
    yield made
    slow.gate.set()
    made.close(5.0)


def test_a_job_gets_what_the_model_says(batcher, slow):
    jobs = [job([5, 6, row], max_tokens=12, top=3) for row in range(2, 9)]
    batcher.submit(jobs)
    told = [tokens(one) for one in jobs]
    assert told == slow.generate([one.prompt for one in jobs], max_new_tokens=12)
    first = jobs[0].generated[0]
    ids, values = slow.top_logprobs([jobs[0].prompt], 3)
    assert (first.top_ids, first.top_logprobs) == (ids[0].tolist(), values[0].tolist())


def test_samples_do_not_depend_on_who_shares_the_batch(batcher):
    def sampled():
        return job([5, 6], max_tokens=10, temperature=1.3, generator=np.random.default_rng([7, 0]))

    alone = sampled()
    batcher.submit([alone])
    expected = tokens(alone)
    crowd = [job([9, row], max_tokens=10, temperature=0.7, generator=np.random.default_rng(row)) for row in range(2, 5)]
    again = sampled()
    batcher.submit([*crowd, again])
    assert tokens(again) == expected


def test_a_batch_is_never_larger_than_allowed_and_is_filled(batcher, slow):
    slow.gate.clear()
    jobs = [job([5, 6, row % 40 + 2], max_tokens=1) for row in range(13)]
    for one in jobs:
        batcher.submit([one])
    slow.gate.set()
    for one in jobs:
        one.done.result(30)
    # Whatever the first batch caught, the rest came in batches of 4.
    assert max(slow.batches) == 4
    assert sum(slow.batches) == 13
    assert len(slow.batches) <= 5


def test_latecomers_join_between_two_tokens(batcher, slow):
    """A sequence that arrives while a long one runs is finished before it."""
    slow.seconds = 0.01
    long = job([5, 6], max_tokens=5000)
    long.stop_ids = frozenset()
    batcher.submit([long])
    while not long.generated:
        time.sleep(0.001)
    short = job([7, 8], max_tokens=2)
    batcher.submit([short])
    short.done.result(30)
    assert not long.done.done()
    batcher.cancel([long])


def test_an_idle_batcher_waits_for_company_but_not_long(slow):
    batcher = Batcher(slow, max_batch_size=4, max_wait_ms=4000.0)
    started = time.monotonic()
    alone = job([5], max_tokens=1)
    batcher.submit([alone])
    alone.done.result(30)
    waited = time.monotonic() - started
    assert waited >= 0.9  # a quarter of max_wait_ms
    slow.batches.clear()
    together = [job([5, row], max_tokens=1) for row in (6, 7)]
    threading.Timer(0.03, batcher.submit, [together[1:]]).start()
    batcher.submit(together[:1])
    for one in together:
        one.done.result(30)
    assert slow.batches == [2]
    slow.batches.clear()
    full = [job([5, row], max_tokens=1) for row in (6, 7, 8, 9)]
    batcher.submit(full)
    for one in full:
        one.done.result(30)
    assert slow.batches == [4]
    batcher.close(5.0)


def test_where_requests_come_one_by_one_it_does_not_wait_again(slow, monkeypatch):
    waits: list[int] = []
    gather = Batcher._gather
    monkeypatch.setattr(Batcher, "_gather", lambda self: (waits.append(1), gather(self))[1])
    batcher = Batcher(slow, max_batch_size=4, max_wait_ms=40.0)

    def ask(*rows):
        jobs = [job([5, row], max_tokens=1) for row in rows]
        for one in jobs:
            batcher.submit([one])
        for one in jobs:
            one.done.result(30)
        time.sleep(0.05)  # longer than max_wait_ms

    ask(6)
    assert len(waits) == 1  # in vain
    ask(7)
    ask(8)
    assert len(waits) == 1
    slow.gate.clear()
    two = [job([5, row], max_tokens=1) for row in (6, 7)]
    for one in two:
        batcher.submit([one])
    slow.gate.set()
    for one in two:  # two at a time: company may be worth waiting for again
        one.done.result(30)
    ask(6)
    assert len(waits) >= 2
    batcher.close(5.0)


def test_a_full_queue_takes_none_of_a_request(batcher, slow):
    slow.gate.clear()
    first = job([5], max_tokens=1)
    batcher.submit([first])
    while batcher.load[0] == 0:
        time.sleep(0.001)
    waiting = [job([5, 6], max_tokens=1) for _ in range(16)]
    batcher.submit(waiting[:15])
    with pytest.raises(Full, match="15 sequences are waiting and 16 may"):
        batcher.submit([job([7], max_tokens=1), job([8], max_tokens=1)])
    batcher.submit(waiting[15:])
    assert batcher.load == (1, 16)
    slow.gate.set()
    for one in [first, *waiting]:
        one.done.result(30)


def test_a_poisoned_prompt_fails_alone(batcher, slow):
    slow.poison = 30
    good = [job([5, row], max_tokens=1) for row in (6, 7)]
    bad = job([5, 30], max_tokens=1)
    batcher.submit([good[0], bad, good[1]])
    assert all(len(tokens(one)) == 1 for one in good)
    with pytest.raises(ValueError, match="poisoned"):
        bad.done.result(30)
    after = job([5, 8], max_tokens=1)
    batcher.submit([after])
    assert tokens(after)


def test_a_cancelled_job_leaves_the_batch(batcher, slow):
    slow.seconds = 0.005
    endless = job([5], max_tokens=10_000)
    endless.stop_ids = frozenset()
    batcher.submit([endless])
    while len(endless.generated) < 2:
        time.sleep(0.001)
    batcher.cancel([endless])
    with pytest.raises(concurrent.futures.CancelledError):
        endless.done.result(30)
    assert len(endless.generated) < 10_000
    after = job([5, 8], max_tokens=1)
    batcher.submit([after])
    assert tokens(after)


def test_closing_finishes_what_was_begun_and_takes_nothing_more(slow):
    batcher = Batcher(slow, max_batch_size=2, max_wait_ms=0.0)
    slow.seconds = 0.01
    jobs = [job([5, row], max_tokens=3) for row in range(2, 7)]
    batcher.submit(jobs)
    batcher.close(30.0)
    assert all(one.done.done() for one in jobs)
    assert all(tokens(one) for one in jobs)
    with pytest.raises(BackendError, match="shutting down"):
        batcher.submit([job([5])])


def test_closing_in_a_hurry_fails_what_is_left(slow):
    batcher = Batcher(slow, max_batch_size=1, max_wait_ms=0.0)
    slow.gate.clear()
    jobs = [job([5, row], max_tokens=3) for row in range(2, 5)]
    batcher.submit(jobs)
    batcher.close(0.05)
    for one in jobs:
        with pytest.raises(BackendError, match="before this was finished"):
            one.done.result(1)
    slow.gate.set()


def test_scoring_shares_batches_with_generating(batcher, slow):
    prompt = [5, 6, 7, 8]
    plain = Job(prompt=prompt, max_tokens=0, top=0, echo=True)
    ranked = Job(prompt=prompt, max_tokens=2, top=2, echo=True, stop_ids=frozenset({1}))
    batcher.submit([plain, ranked])
    own = slow.score([prompt[:1]], [prompt[1:]])[0].tolist()
    told = [position.logprob for position in plain.done.result(30).scored]
    assert told == [None, *own]
    assert [p.logprob for p in ranked.done.result(30).scored] == [None, *own]
    ids, _ = slow.top_logprobs([prompt[:2]], 2)
    assert ranked.scored[2].top_ids == ids[0].tolist()
    assert [p.token for p in ranked.generated] == slow.generate([prompt], max_new_tokens=2)[0]


@pytest.mark.parametrize("bad", [{"max_batch_size": 0}, {"max_queue": 0}, {"max_wait_ms": -1.0}])
def test_impossible_settings_are_refused(slow, bad):
    with pytest.raises(ConfigError, match="at least"):
        Batcher(slow, **bad)
