"""Models named by an address: one string says server (or engine), model, tokenizer and the key's variable."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from treegym.errors import ConfigError, suggest
from treegym.models.backends import back_end_of
from treegym.models.base import Embeds, Generates, Speaker, TextTokenizer
from treegym.models.loading import resolve
from treegym.models.remote.chat import ChatClient, ChatTeacher
from treegym.models.remote.model import RemoteModel
from treegym.models.tokens.tokenizers import load_tokenizer

__all__ = ["connect", "is_address"]

IN_PROCESS = "vllm:"
LITELLM = "litellm:"
_NUMBERS = {"concurrency": int, "prompts_per_request": int, "timeout_s": float, "requests_per_minute": float}
_NUMBERS |= {"tokens_per_minute": float}
_NAMES = ("model", "name", "key_env")


def is_address(name: str) -> bool:
    """Whether a model's name is the address of a server, of an engine in this process, or LiteLLM's."""
    return back_end_of(name) is not None


def connect(
    address: str,
    *,
    tokenizer: TextTokenizer | None = None,
    embedder: Embeds | None = None,
    primary: Speaker | None = None,
) -> Generates:
    """Returns the model at an address such as ``http://127.0.0.1:8000/v1#tokenizer=tiny-primary&key_env=MY_KEY``.

    ``vllm:NAME`` is a model run by vLLM in this process, ``litellm:bedrock/NAME`` one that LiteLLM reaches, which can
    only be talked to and also takes the setting api_base.

    Args:
        address: a base URL and, after ``#``, settings: tokenizer (a bundled model, a directory or a hub name), model
            (its name on the server), name (what reports call it), key_env, concurrency, prompts_per_request,
            timeout_s, requests_per_minute, tokens_per_minute, and chat=yes for a model that can only be talked to (its
            tokenizer is then the primary's).
        tokenizer: the tokenizer itself, instead of its name in the address.
        embedder: a local model that gives hidden states for the served one.
        primary: the model in whose tokens a chat model's answers are written, where its address names no tokenizer.
    """
    if address.startswith(IN_PROCESS):
        from treegym.models.local.vllm_model import VllmModel

        return VllmModel(address.removeprefix(IN_PROCESS), tokenizer=tokenizer, embedder=embedder)
    url, _, text = address.partition("#")
    hosted = url.startswith(LITELLM)
    settings: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in _NUMBERS:
            try:
                settings[name] = _NUMBERS[name](value)
            except ValueError:
                raise ConfigError(f"{name} in the address must be a number") from None  # it may be a key
        elif name in _NAMES or name in ("tokenizer", "chat") or (name == "api_base" and hosted):
            settings[name] = value
        else:  # its value is not repeated: it may be a key
            raise ConfigError(
                f"the address has an unknown setting.{suggest(name, [*_NUMBERS, *_NAMES, 'tokenizer', 'chat'])}"
            )
    chat = settings.pop("chat", "yes" if hosted else "no")
    if chat not in ("yes", "no"):
        raise ConfigError("chat in the address must be yes or no")
    named = settings.pop("tokenizer", None)
    if tokenizer is None and named is None and chat == "yes" and primary is not None:
        tokenizer = primary.tokenizer
    if tokenizer is None:
        if named is None:
            raise ConfigError(
                f"{url} needs the tokenizer of its model: add #tokenizer=, a bundled model, directory or hub name"
            )
        where, local = resolve(named)
        tokenizer = load_tokenizer(where, local_files_only=local)
    if hosted:
        return _hosted(url.removeprefix(LITELLM), tokenizer, settings)
    if chat == "yes":
        settings.pop("prompts_per_request", None)  # a chat is one conversation
        return ChatTeacher(url, tokenizer=tokenizer, **settings)
    return RemoteModel(url, tokenizer=tokenizer, embedder=embedder, **settings)


def _hosted(model: str, tokenizer: TextTokenizer, settings: dict[str, Any]) -> Generates:
    """Returns a chat teacher behind LiteLLM."""
    from treegym.models.remote.litellm_endpoint import LiteLLMEndpoint

    name = settings.pop("name", model)
    extra = {key: settings.pop(key) for key in ("api_base",) if key in settings}
    endpoint = LiteLLMEndpoint(**settings)
    return ChatTeacher(ChatClient(endpoint, model=model, extra=extra), tokenizer=tokenizer, name=name)
