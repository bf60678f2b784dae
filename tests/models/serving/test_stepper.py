"""Sequences that join and leave a cached batch at any time get the distributions of their whole contexts."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.models.serving.batcher import Batcher
from treegym.models.serving.jobs import Job
from treegym.models.serving.stepper import CachedStepper, stepper_for


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_rows_come_and_go_at_random(make_model, family):
    model = make_model(family, window=8)
    stepper = stepper_for(model)
    assert isinstance(stepper, CachedStepper)
    rng = np.random.default_rng(1)
    running: dict[int, list[int]] = {}
    for step in range(40):
        for _ in range(rng.integers(0, 3)):
            running[1000 * step + len(running)] = rng.integers(2, 24, size=rng.integers(1, 20)).tolist()
        for key in list(running):
            if rng.random() < 0.1 and len(running) > 1:
                del running[key]
        keys = [int(k) for k in rng.permutation(list(running))]
        if not keys:
            continue
        last = [bool(rng.random() < 0.15) for _ in keys]
        told = stepper.next_logprobs(keys, [running[key] for key in keys], last)
        own = model.next_logprobs([running[key] for key in keys])
        np.testing.assert_allclose(told, own, atol=2e-4)
        for key, row, gone in zip(keys, told, last, strict=True):
            if gone:
                del running[key]
            else:
                running[key].append(int(row.argmax()))


def test_a_cached_token_costs_one_token(make_model):
    model = make_model()
    stepper = CachedStepper(model)
    context = [5] * 30
    stepper.next_logprobs(["a"], [context], [False])
    before = model.forward_tokens
    for token in range(2, 12):
        context.append(token)
        stepper.next_logprobs(["a"], [context], [False])
    assert model.forward_tokens - before == 10


def test_the_batcher_serves_a_transformers_model_as_it_generates(make_model):
    model = make_model()
    batcher = Batcher(model, max_batch_size=5, max_wait_ms=0.0)
    prompts = [[5, 6, row] for row in range(2, 14)]
    jobs = [Job(prompt=p, max_tokens=4 + p[2], stop_ids=frozenset({1})) for p in prompts]
    for job in jobs:
        batcher.submit([job])
    for job in jobs:
        [own] = model.generate([job.prompt], max_new_tokens=job.max_tokens)
        assert [p.token for p in job.done.result(60).generated] == own
    batcher.close(5.0)
