"""Clients of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, Ollama, OpenRouter) by base URL."""

from __future__ import annotations

from treegym.models.http_chat import ChatAnswer, ChatClient
from treegym.models.http_endpoint import Endpoint, Refused
from treegym.models.http_journal import Journal
from treegym.models.http_retry import RetryPolicy
from treegym.models.http_usage import Prices, Usage
from treegym.models.remote_model import RemoteModel

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
