"""Hosted models behind LiteLLM (Amazon Bedrock and what else it knows), asked in this process instead of by URL.

LiteLLM takes and gives the chat form of the OpenAI-compatible protocol, so this is an `Endpoint` that hands its
requests to it: retries, limits, concurrency and accounting are the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

from treegym.errors import BackendError, ConfigError, require
from treegym.models.remote.answers import parse
from treegym.models.remote.endpoint import QUOTED, Endpoint, Refused, Transient
from treegym.models.remote.pacing import RETRYABLE

__all__ = ["LiteLLMEndpoint"]

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
SHORTEST = 6  # letters of a secret; what is shorter would strike out ordinary words


class LiteLLMEndpoint(Endpoint):
    """Sends chats through the package `litellm`, which finds its keys in the environment by itself."""

    def __init__(self, **settings: Any) -> None:
        """Takes the settings of `Endpoint` but its address and key."""
        if unfit := settings.keys() & {"base_url", "key_env", "insecure"}:
            raise ConfigError(f"LiteLLM has no use for {', '.join(sorted(unfit))}: it finds servers and keys by itself")
        # LiteLLM would fetch a list of prices from the network when it is imported; its own copy will do.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        self._litellm: Any = require("litellm", extra="litellm", purpose="hosted models through LiteLLM")
        vars(self._litellm).update(suppress_debug_info=True, telemetry=False)
        self._failures: Any = require("openai", extra="litellm", purpose="LiteLLM's errors").OpenAIError
        super().__init__("http://localhost", **settings)
        self.base_url = "litellm"  # what errors and fingerprints say

    async def _once(self, client: Any, method: str, path: str, raw: bytes | None) -> dict[str, Any]:
        if path != "chat/completions" or raw is None:
            raise BackendError(f"LiteLLM serves chats here, and not {path}: use the model as a teacher that answers")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._litellm.acompletion(**json.loads(raw), num_retries=0, max_retries=0)
        except TimeoutError:
            raise Transient(f"no whole answer within {self._timeout_s:.1f} s", broken=True) from None
        except self._failures as error:
            raise _told(error) from None
        return parse(json.dumps(answer.model_dump(), default=str).encode())

    def _connected(self) -> Any:
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._gate = asyncio.Semaphore(self.concurrency)
        return None


def _without_secrets(text: str) -> str:
    """Returns the text without the values of environment variables that are named like secrets."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, "***")
    return text


def _told(error: Exception) -> Exception:
    """Returns what an error of LiteLLM's means here."""
    status = int(getattr(error, "status_code", None) or 500)
    words = _without_secrets(" ".join(str(error).split()))[:QUOTED]
    if status in RETRYABLE:
        return Transient(f"status {status}: {words}")
    return Refused(f"LiteLLM refused with status {status}: {words}", status)
