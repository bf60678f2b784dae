"""Clients of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, Ollama, OpenRouter) by base URL."""

from __future__ import annotations

from treegym.models.remote.chat import ChatAnswer, ChatClient
from treegym.models.remote.endpoint import Endpoint, Refused
from treegym.models.remote.journal import Journal
from treegym.models.remote.model import RemoteModel
from treegym.models.remote.retry import RetryPolicy
from treegym.models.remote.usage import Prices, Usage

__all__ = [
    "ChatAnswer",
    "ChatClient",
    "Endpoint",
    "Journal",
    "Prices",
    "Refused",
    "RemoteModel",
    "RetryPolicy",
    "Usage",
]
