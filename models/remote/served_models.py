"""What a server says about the models it serves."""

from __future__ import annotations

from typing import Any

from treegym.errors import ConfigError, suggest
from treegym.models.remote.endpoint import Endpoint
from treegym.models.remote.untrusted_json import MalformedAnswer, field

__all__ = ["model_cards", "served_model"]


def model_cards(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Returns the server's list of models: name -> what it says of it."""

    def read(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {field(card, "id", str): card for card in field(answer, "data", list)}

    return endpoint.get("models", check=read)


def served_model(endpoint: Endpoint, wanted: str | None = None) -> str:
    """Returns the name of the model to ask for: the one wanted, or the only one there is."""
    names = list(model_cards(endpoint))
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{endpoint.base_url} does not serve a model {wanted!r}.{suggest(wanted, names)}")
        return wanted
    if not names:
        raise MalformedAnswer(f"{endpoint.base_url} lists no models")
    if len(names) > 1:
        raise ConfigError(f"{endpoint.base_url} serves {len(names)} models; name one with model=.{suggest('', names)}")
    return names[0]
