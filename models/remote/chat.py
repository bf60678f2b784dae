"""Chat with a served model: for judges, and for teachers that answer in words, as most hosted models do."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from treegym.errors import ConfigError, DataError
from treegym.models.base import Sampling, SamplingSettings, TextTokenizer, TokenIds, through_stop
from treegym.models.remote.answers import MalformedAnswer, field
from treegym.models.remote.dialect import model_cards, served_model
from treegym.models.remote.endpoint import Endpoint
from treegym.models.remote.journal import Journal

__all__ = ["FEWEST_STEPS", "ChatAnswer", "ChatClient", "ChatTeacher", "Message"]

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class ChatAnswer:
    """One answer in words."""

    text: str
    finish_reason: str  # "stop", "length", or what else the server says


class ChatClient:
    """Asks ``/chat/completions`` of any OpenAI-compatible server."""

    def __init__(
        self,
        endpoint: Endpoint | str,
        *,
        model: str | None = None,
        journal: Journal | None = None,
        extra: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Prepares a client.

        Args:
            endpoint: an `Endpoint` to share, or a base URL; `settings` are then the `Endpoint`'s keyword arguments.
            model: the model's name on that server; without it the server must serve exactly one.
            journal: where finished answers are kept, so that an interrupted batch is not paid for twice.
            extra: further fields of every request, such as ``{"top_p": 0.9}``.
        """
        self.endpoint = Endpoint(endpoint, **settings) if isinstance(endpoint, str) else endpoint
        if settings and not isinstance(endpoint, str):
            raise ConfigError(f"pass {', '.join(settings)} to the Endpoint, not beside it")
        self._model, self._journal, self._extra = model, journal, dict(extra or {})
        self.context_length: int | None = None  # tokens of a conversation, where the only model there is tells it

    @property
    def model(self) -> str:
        """Returns the model's name on the server."""
        if self._model is None:
            self._model = served_model(self.endpoint)
            told = model_cards(self.endpoint)[self._model].get("max_model_len")
            self.context_length = told if isinstance(told, int) and told > 0 else None
        return self._model

    @property
    def usage(self) -> Any:
        """Returns the running totals of requests, tokens and money."""
        return self.endpoint.usage

    def complete(self, messages: Sequence[Message], **settings: Any) -> str:
        """Returns the answer to one conversation; settings as in `answers`."""
        return self.complete_many([messages], **settings)[0]

    def complete_many(self, conversations: Sequence[Sequence[Message]], **settings: Any) -> list[str]:
        """Returns the answers to many conversations, asked concurrently, in order; settings as in `answers`."""
        return [answer.text for answer in self.answers(conversations, **settings)]

    def answers(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> list[ChatAnswer]:
        """Returns the answers with how each ended; row r of a seeded batch is asked with ``seed + r``."""
        bodies = []
        for row, messages in enumerate(conversations):
            body: dict[str, Any] = {
                "model": self.model,
                "messages": [_checked(message) for message in messages],
                "max_tokens": max_tokens,
                "temperature": temperature,
                **self._extra,
            }
            if seed is not None:
                body["seed"] = (seed + row) % 2**31
            if stop:
                body["stop"] = list(stop)
            bodies.append(body)
        return self.endpoint.map(self._ask, bodies)

    async def _ask(self, body: dict[str, Any]) -> ChatAnswer:
        if self._journal is not None and (kept := self._journal.get("chat", body)) is not None:
            return _read(kept)

        def check(answer: dict[str, Any]) -> ChatAnswer:
            read = _read(answer)
            if self._journal is not None:
                self._journal.put("chat", body, {"choices": [_kept(read)]})
            return read

        return await self.endpoint.chat(body, check)


def _checked(message: Message) -> dict[str, str]:
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or not isinstance(content, str):
        raise ConfigError(
            f"a message needs a role ({', '.join(ROLES)}) and a content that is text, not {message!r:.200}"
        )
    return {"role": str(role), "content": content}


def _read(answer: dict[str, Any]) -> ChatAnswer:
    """Returns the first choice of an answer, checked."""
    choices = field(answer, "choices", list)
    if not choices:
        raise MalformedAnswer("the answer holds no choices")
    message = field(choices[0], "message", dict)
    content = message.get("content")
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"]
    if not isinstance(content, str):
        raise MalformedAnswer(f"the message holds no text but {str(content)[:60]!r}")
    reason = choices[0].get("finish_reason")
    return ChatAnswer(content, reason if isinstance(reason, str) else "unknown")


def _kept(answer: ChatAnswer) -> dict[str, Any]:
    return {"message": {"content": answer.text}, "finish_reason": answer.finish_reason}


FEWEST_STEPS = "Answer in the fewest steps you need. Write the answer only, without explanations or formatting."
ROOM = 4  # tokens of the hosted model allowed for one of the primary's, whose pieces may be longer


class ChatTeacher:
    """Fits `Generates` and no more: it proposes answers, and has no opinion on single tokens."""

    def __init__(
        self,
        client: ChatClient | Endpoint | str,
        *,
        tokenizer: TextTokenizer,
        model: str | None = None,
        name: str | None = None,
        system: str = FEWEST_STEPS,
        **settings: Any,
    ) -> None:
        """Prepares a teacher.

        Args:
            client: a `ChatClient`, an `Endpoint`, or a base URL with the `Endpoint`'s keyword arguments as `settings`.
            tokenizer: the primary's tokenizer, in whose tokens the answers are written.
            model: the model's name on the server; without it the server must serve exactly one.
            name: what reports and provenance call it; default the server's name for it.
            system: what asks for the fewest steps.
        """
        if isinstance(client, ChatClient) and (settings or model is not None):
            raise ConfigError("pass model and endpoint settings to the ChatClient, not beside it")
        self._chat = client if isinstance(client, ChatClient) else ChatClient(client, model=model, **settings)
        self.tokenizer = tokenizer
        self._name, self._system = name, system
        self._warned = False

    @property
    def name(self) -> str:
        """Returns what reports and provenance call the teacher."""
        return self._name if self._name is not None else self._chat.model

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def usage(self) -> Any:
        """Returns the running totals of requests, tokens and money."""
        return self._chat.usage

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        """Returns the answers in the primary's tokens, cut at the first character its vocabulary lacks."""
        asked = Sampling(**settings)
        stops = asked.stops(self.tokenizer)
        conversations = [
            [{"role": "system", "content": self._system}, {"role": "user", "content": self.tokenizer.decode(context)}]
            for context in contexts
        ]
        answers = self._chat.answers(
            conversations,
            max_tokens=self._room(conversations, asked.max_new_tokens),
            temperature=asked.temperature,
            seed=None if asked.greedy else asked.seed,
        )
        made = []
        for answer in answers:
            ids, whole = self._written(answer.text.strip())
            if whole and answer.finish_reason == "stop":
                ids = [*ids, self.tokenizer.eos_id]
            made.append((through_stop(ids, stops) or ids)[: asked.max_new_tokens])
        return made

    def _room(self, conversations: Sequence[Sequence[Message]], wanted: int) -> int:
        """Returns how many tokens to ask for: as many as the answer may take, within what the model's context has left.

        Letters bound the tokens of a conversation, which only the server can count.
        """
        room = ROOM * wanted
        if self._chat.model and self._chat.context_length is not None:
            letters = max((sum(len(m["content"]) for m in messages) for messages in conversations), default=0)
            room = min(room, max(wanted, self._chat.context_length - letters))
        return room

    def _written(self, text: str) -> tuple[list[int], bool]:
        """Returns the tokens of the longest beginning the vocabulary can express, and whether that is all of it."""
        try:
            return self.tokenizer.encode(text), True
        except DataError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(f"{self.name} wrote what the primary cannot say and is cut there: {error}", stacklevel=3)
        low, high = 0, len(text)
        while low < high:  # the longest beginning that can be encoded
            middle = (low + high + 1) // 2
            try:
                self.tokenizer.encode(text[:middle])
                low = middle
            except DataError:
                high = middle - 1
        return self.tokenizer.encode(text[:low]), False

    def fingerprint(self) -> str:
        """Returns a hash of where and what is asked: a hosted model shows no more of itself."""
        asked = repr((self._chat.endpoint.base_url, self._chat.model, self._system, self.tokenizer.fingerprint()))
        return hashlib.sha256(asked.encode()).hexdigest()
