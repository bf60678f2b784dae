"""A teacher that can only be talked to: most hosted models give words and no log-probabilities."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

from treegym.errors import ConfigError, DataError
from treegym.models.base import Sampling, SamplingSettings, TextTokenizer, TokenIds, through_stop
from treegym.models.remote.chat import ChatClient, Message
from treegym.models.remote.endpoint import Endpoint

__all__ = ["FEWEST_STEPS", "ChatTeacher"]

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
