"""A judge behind any OpenAI-compatible server: concurrent, retried within bounds, and failing one case at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from treegym.errors import BackendError
from treegym.models.remote.answers import MalformedAnswer, field
from treegym.models.remote.dialect import served_model
from treegym.models.remote.pacing import RetryPolicy
from treegym.rewards.judge.prompt import Case, JudgePrompt, Unreadable
from treegym.rewards.judge.wire import NearEndpoint

__all__ = ["HttpJudge"]


class HttpJudge:
    """Asks ``/chat/completions`` about many cases at once.

    Args:
        url: base URL, such as ``http://127.0.0.1:8000/v1``.
        prompt: what is asked and how the reply is read.
        model: the model's name on the server; without it the server must serve exactly one.
        key_env: the environment variable with the server's key.
        concurrency: most requests under way at once.
        timeout: seconds for one try.
        total: seconds for one case, over all its tries and the waits between.
        attempts: most tries for one case; an unreadable reply is a failed try.
        max_tokens: most tokens of a reply.
        seed: of the jitter between tries.
    """

    def __init__(
        self,
        *,
        url: str,
        prompt: JudgePrompt,
        model: str | None = None,
        key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 60.0,
        total: float = 180.0,
        attempts: int = 5,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> None:
        self.prompt, self.total, self.max_tokens = prompt, total, max_tokens
        self._model = model
        self.endpoint = NearEndpoint(
            url,
            key_env=key_env,
            concurrency=concurrency,
            timeout_s=timeout,
            # A reply that bears no tag could be a stray one to another request: each then has a connection of its own.
            keep=prompt.tagged,
            max_answer_bytes=2**20 + 64 * max_tokens,
            retry=RetryPolicy(attempts=attempts, longest_wait_s=min(15.0, total), longest_retry_after_s=total),
            seed=seed,
        )

    @property
    def identity(self) -> list[Any]:
        """What a judgement depends on besides the case: server, model and length; part of the cache's key."""
        return ["http", self.endpoint.base_url, self._model, self.max_tokens]

    def scores(
        self, cases: Sequence[Case], *, keep: Callable[[int, float], None] | None = None
    ) -> tuple[list[float | None], dict[int, str]]:
        """Returns a score or None for each case, and the reasons of the failures.

        Args:
            cases: what to judge.
            keep: called with position and score as soon as a case is judged, so that an interruption loses nothing.
        """
        scores: list[float | None] = [None] * len(cases)
        reasons: dict[int, str] = {}
        try:
            model = self._model or served_model(self.endpoint)
        except BackendError as error:
            return scores, dict.fromkeys(range(len(cases)), str(error))
        # The gate stands outside the endpoint's own, so that the time a case waits for its turn does not count.
        gate = asyncio.Semaphore(self.endpoint.concurrency)
        lost = 0  # failures for good since the last success: a server that is down is not asked a thousand times

        async def judge(position: int) -> None:
            nonlocal lost
            async with gate:
                if lost >= self.endpoint.concurrency:
                    reasons[position] = f"not asked: the {lost} judgements before it failed one after another"
                    return
                try:
                    async with asyncio.timeout(self.total):
                        score = await self._ask(model, cases[position])
                except TimeoutError:
                    reasons[position] = f"no judgement within {self.total:g} s"
                    lost += 1
                except BackendError as error:
                    reasons[position] = str(error)
                    lost += 1
                else:
                    lost = 0
                    scores[position] = score
                    if keep is not None:
                        keep(position, score)

        self.endpoint.map(judge, range(len(cases)))
        return scores, reasons

    async def _ask(self, model: str, case: Case) -> float:
        messages = self.prompt.messages(case)
        body = {"model": model, "messages": messages, "max_tokens": self.max_tokens, "temperature": 0.0}

        def check(answer: dict[str, Any]) -> float:
            choices = field(answer, "choices", list)
            if not choices:
                raise MalformedAnswer("the answer holds no choices")
            reply = field(field(choices[0], "message", dict), "content", str)
            try:
                return self.prompt.read(reply, case)
            except Unreadable as error:
                raise MalformedAnswer(str(error)) from None

        return await self.endpoint.chat(body, check)

    def close(self) -> None:
        """Closes the connections."""
        self.endpoint.close()
