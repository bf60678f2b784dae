"""Requests read and checked, answers written: the completions and chat forms of the OpenAI-compatible protocol."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from treegym.errors import DataError, TreeGymError
from treegym.models.base import TextTokenizer
from treegym.models.serving.jobs import Job, Position

__all__ = ["Asked", "BadRequest", "Speaker", "read_chat", "read_completion"]

FLOOR = -9999.0  # JSON has no minus infinity
MOST_TOKENS = 2**20


class BadRequest(TreeGymError, ValueError):
    """A request that cannot be served as it is; the message goes to the client."""


@dataclass(frozen=True)
class Asked:
    """A request in terms of jobs, and how its answer is to be written."""

    jobs: list[Job]
    echo: bool
    logprobs: bool
    by_id: bool  # name tokens "token_id:7"
    list_ids: bool  # list the ids outright
    stops: tuple[str, ...]
    stream: bool


def _number(body: Mapping[str, Any], name: str, default: Any, low: float, high: float, *, whole: bool = False) -> Any:
    value = body.get(name)
    value = default if value is None else value
    if value is None:
        return None
    fits = isinstance(value, int) if whole else isinstance(value, int | float)
    if not fits or isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise BadRequest(f"{name} must be {kind} from {low:g} to {high:g}, not {str(value)[:40]!r}")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false, not {str(value)[:40]!r}")
    return bool(value)


def _neutral(body: Mapping[str, Any]) -> None:
    """Refuses settings that would change the answer and are not served, rather than ignoring them."""
    neutral = {"n": 1, "best_of": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
    neutral |= {"repetition_penalty": 1, "min_p": 0}
    for name, value in neutral.items():
        if body.get(name) is not None and body[name] != value:
            raise BadRequest(f"{name} is served only as {value}, not {str(body[name])[:40]!r}")
    for name in ("suffix", "logit_bias", "tools", "response_format"):
        if body.get(name):
            raise BadRequest(f"{name} is not served; leave it out")


@dataclass(frozen=True)
class Speaker:
    """The model as the protocol sees it: its name, vocabulary and limits."""

    name: str
    tokenizer: TextTokenizer
    pieces: Sequence[bytes]
    fingerprint: str
    max_length: int  # tokens of prompt and answer together
    max_logprobs: int | None = None  # log-probabilities a client may ask for per position; 0 tells none, None all

    def top(self, asked: int | None) -> int | None:
        """Returns how many of the likeliest tokens to tell per position; a negative number asks for all."""
        size = self.tokenizer.vocab_size
        if asked is None:
            return None
        wanted = size if asked < 0 else min(asked, size)
        if self.max_logprobs is not None and (wanted > self.max_logprobs or not self.max_logprobs):
            raise BadRequest(f"{wanted} log-probabilities per position are more than the {self.max_logprobs} told here")
        return wanted

    def token_name(self, token: int, by_id: bool) -> str:
        """Returns how an answer names a token."""
        piece = self.pieces[token] if token < len(self.pieces) else b""
        if by_id or not piece:
            return f"token_id:{token}"
        try:
            return piece.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

    @cached_property
    def longest_text(self) -> int:
        """Characters beyond which no text fits: so many of the longest token."""
        return self.max_length * max(map(len, self.pieces))

    def check_text(self, text: str) -> None:
        """Refuses a text that cannot fit, before the time is spent to make tokens of it."""
        if len(text) > self.longest_text:
            raise BadRequest(f"a prompt of {len(text):,} characters is more than this model's {self.max_length} tokens")

    def ids(self, prompt: Any) -> list[int]:
        """Returns the token ids of a prompt given as ids or as text."""
        if isinstance(prompt, str):
            self.check_text(prompt)
            try:
                ids = [*getattr(self.tokenizer, "prefix_ids", ()), *self.tokenizer.encode(prompt)]
            except DataError as error:
                raise BadRequest(str(error)) from None
        else:
            ids = prompt
        size = self.tokenizer.vocab_size
        if not isinstance(ids, list) or not ids:
            raise BadRequest("a prompt must be text or a list of token ids, and not empty")
        if not all(type(i) is int and 0 <= i < size for i in ids):
            raise BadRequest(f"a prompt's token ids must be whole numbers from 0 to {size - 1}")
        return ids

    def jobs(self, prompts: list[list[int]], body: Mapping[str, Any], top: int | None, echo: bool) -> list[Job]:
        """Returns one job per prompt."""
        limit = _number(body, "max_completion_tokens", None, 0, MOST_TOKENS, whole=True)
        limit = _number(body, "max_tokens", 16 if limit is None else limit, 0, MOST_TOKENS, whole=True)
        temperature = float(_number(body, "temperature", 1.0, 0.0, 100.0))
        seed = _number(body, "seed", None, -(2**63), 2**63 - 1, whole=True)
        stop_ids = body.get("stop_token_ids")
        stop_ids = [self.tokenizer.eos_id] if stop_ids is None else stop_ids
        if not isinstance(stop_ids, list) or not all(type(i) is int for i in stop_ids):
            raise BadRequest("stop_token_ids must be a list of whole numbers")
        stops = _stops(body)
        jobs = []
        for row, prompt in enumerate(prompts):
            if len(prompt) + limit > self.max_length:
                raise BadRequest(
                    f"{len(prompt)} prompt tokens and {limit} to generate are more than this model's {self.max_length}"
                )
            generator = np.random.default_rng() if seed is None else np.random.default_rng([seed % 2**64, row])
            jobs.append(
                Job(
                    prompt=prompt,
                    max_tokens=limit,
                    temperature=temperature,
                    generator=generator if temperature > 0 else None,
                    stop_ids=frozenset(stop_ids),
                    stops_text=self._stopper(stops) if stops else None,
                    top=top,
                    echo=echo,
                )
            )
        return jobs

    def _stopper(self, stops: tuple[str, ...]) -> Any:
        return lambda ids: any(stop in self.tokenizer.decode(ids) for stop in stops)

    def text(self, job: Job, asked: Asked) -> str:
        """Returns what a job says, cut before a stop string."""
        said = self.tokenizer.decode([p.token for p in job.generated])
        cuts = [place for stop in asked.stops if (place := said.find(stop)) >= 0]
        said = said[: min(cuts)] if cuts else said
        return self.tokenizer.decode(job.prompt) + said if asked.echo else said

    def logprobs(self, positions: Sequence[Position], by_id: bool) -> dict[str, Any]:
        """Returns the log-probabilities of a completion: parallel lists."""
        names = [self.token_name(p.token, by_id) for p in positions]
        lengths = [len(self.pieces[p.token].decode("utf-8", "replace")) for p in positions]
        tops = [
            {self.token_name(i, by_id): max(v, FLOOR) for i, v in zip(p.top_ids, p.top_logprobs, strict=True)}
            for p in positions
        ]
        return {
            "tokens": names,
            "token_logprobs": [None if p.logprob is None else max(p.logprob, FLOOR) for p in positions],
            "top_logprobs": [top if p.logprob is not None else None for top, p in zip(tops, positions, strict=True)],
            "text_offset": [0, *np.cumsum(lengths)[:-1].tolist()] if lengths else [],
        }

    def choice(self, index: int, job: Job, asked: Asked) -> dict[str, Any]:
        """Returns a completion's choice."""
        choice: dict[str, Any] = {"index": index, "text": self.text(job, asked), "finish_reason": job.finish_reason}
        positions = [*(job.scored or []), *job.generated]
        choice["logprobs"] = self.logprobs(positions, asked.by_id) if asked.logprobs else None
        if asked.list_ids:
            choice["token_ids"] = [p.token for p in job.generated]
            choice["prompt_token_ids"] = job.prompt
        return choice

    def chat_choice(self, index: int, job: Job, asked: Asked) -> dict[str, Any]:
        """Returns a chat's choice."""
        message = {"role": "assistant", "content": self.text(job, asked)}
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": job.finish_reason}
        if asked.logprobs:
            choice["logprobs"] = {"content": [self._object(p) for p in job.generated]}
        return choice

    def _object(self, position: Position) -> dict[str, Any]:
        def entry(token: int, value: float) -> dict[str, Any]:
            named = {"token": self.token_name(token, False), "id": token, "bytes": list(self.pieces[token])}
            return {**named, "logprob": max(value, FLOOR)}

        tops = zip(position.top_ids, position.top_logprobs, strict=True)
        own = entry(position.token, position.logprob or 0.0)
        return {**own, "top_logprobs": [entry(token, value) for token, value in tops]}

    def answer(self, kind: str, jobs: Sequence[Job], choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the whole answer around its choices."""
        prompt, made = sum(len(job.prompt) for job in jobs), sum(len(job.generated) for job in jobs)
        return {
            "id": f"{'chatcmpl' if kind.startswith('chat') else 'cmpl'}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            "usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made},
        }


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 16 or not all(isinstance(s, str) and s for s in stops):
        raise BadRequest("stop must be text or a list of at most 16 texts, none empty")
    return tuple(stops)


def read_completion(body: Mapping[str, Any], speaker: Speaker, *, max_prompts: int) -> Asked:
    """Returns a checked ``/completions`` request."""
    _neutral(body)
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and all(isinstance(p, list | str) for p in prompt)
    prompts = prompt if several else [prompt]
    assert isinstance(prompts, list)
    if len(prompts) > max_prompts:
        raise BadRequest(f"{len(prompts)} prompts in one request are more than the {max_prompts} this server takes")
    echo = _flag(body, "echo")
    top = speaker.top(_number(body, "logprobs", None, -1, MOST_TOKENS, whole=True))
    jobs = speaker.jobs([speaker.ids(p) for p in prompts], body, top, echo)
    if not echo and any(job.max_tokens == 0 for job in jobs):
        raise BadRequest("max_tokens is 0 and echo is not set, so there is nothing to answer")
    return Asked(
        jobs=jobs,
        echo=echo,
        logprobs=top is not None,
        by_id=_flag(body, "return_tokens_as_token_ids"),
        list_ids=_flag(body, "return_token_ids"),
        stops=_stops(body),
        stream=_flag(body, "stream"),
    )


def read_chat(body: Mapping[str, Any], speaker: Speaker) -> Asked:
    """Returns a checked ``/chat/completions`` request.

    A model with a chat template is asked by it; one without sees the last user message alone.
    """
    _neutral(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise BadRequest("every message needs a role and a content, both text")
    template = getattr(getattr(speaker.tokenizer, "hf", None), "chat_template", None)
    if template:
        text = speaker.tokenizer.hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)  # type: ignore[attr-defined]
        speaker.check_text(text)
        ids = speaker.tokenizer.encode(text)
    else:
        users = [message["content"] for message in messages if message["role"] == "user"]
        if not users:
            raise BadRequest("this model has no chat template and answers the last user message; there is none")
        ids = speaker.ids(users[-1])
    wanted = _flag(body, "logprobs")
    top = speaker.top(_number(body, "top_logprobs", 0, 0, MOST_TOKENS, whole=True) if wanted else None)
    jobs = speaker.jobs([speaker.ids(ids)], {"max_tokens": 256, **body}, top, False)
    return Asked(
        jobs=jobs,
        echo=False,
        logprobs=wanted,
        by_id=False,
        list_ids=False,
        stops=_stops(body),
        stream=_flag(body, "stream"),
    )
