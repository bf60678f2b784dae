"""Clients of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, Ollama, OpenRouter) by base URL."""

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.models.remote.chat import ChatAnswer, ChatClient, ChatTeacher
    from treegym.models.remote.endpoint import Endpoint, Refused
    from treegym.models.remote.journal import Journal
    from treegym.models.remote.model import RemoteModel
    from treegym.models.remote.pacing import Prices, RetryPolicy, Usage

__all__ = [
    "ChatAnswer",
    "ChatClient",
    "ChatTeacher",
    "Endpoint",
    "Journal",
    "Prices",
    "Refused",
    "RemoteModel",
    "RetryPolicy",
    "Usage",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "ChatAnswer": "chat",
        "ChatClient": "chat",
        "ChatTeacher": "chat",
        "Endpoint": "endpoint",
        "Journal": "journal",
        "Prices": "pacing",
        "Refused": "endpoint",
        "RemoteModel": "model",
        "RetryPolicy": "pacing",
        "Usage": "pacing",
    },
)
