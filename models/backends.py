"""Any model by its name: the table of back ends, by how a name begins; all other names are models on this machine.

A new back end is one module with a function ``connect(address, **hints)`` and one line in `BACK_ENDS`. An installed
package adds one with the entry point group ``treegym.backends``: ``echo = my_package:connect`` opens ``echo:anything``.
"""

from __future__ import annotations

from typing import Any

from treegym.models.base import Generates, Speaker
from treegym.registry import Registry, resolve

__all__ = ["BACK_ENDS", "INSTALLED", "back_end_of", "open_model"]

BACK_ENDS: dict[str, str] = {  # beginning of a name -> what connects
    "http://": "treegym.models.connect:connect",
    "https://": "treegym.models.connect:connect",
    "llama:": "treegym.models.local.llama_model:connect",
    "litellm:": "treegym.models.connect:connect",
    "vllm:": "treegym.models.connect:connect",
}
INSTALLED = Registry("back end", {}, group="treegym.backends")


def back_end_of(name: str) -> str | None:
    """Returns the import path of the back end that a name belongs to, None for models on this machine."""
    for beginning, path in BACK_ENDS.items():
        if name.startswith(beginning):
            return path
    scheme, separator, _ = name.partition(":")
    return INSTALLED.path_of(scheme) if separator and scheme in INSTALLED else None


def open_model(name: str, *, primary: Speaker | None = None, **loading: Any) -> Generates:
    """Returns the model of a name: an address of a back end, or whatever `load_model` takes.

    Args:
        name: such as ``tiny-primary``, ``smollm2``, ``model.gguf``, ``owner/model`` or ``http://host/v1#tokenizer=...``.
        primary: the model in whose tokens a chat model's answers are written, where its address names no tokenizer.
        loading: arguments of `load_model`, such as device and dtype.
    """
    path = back_end_of(name)
    if path is not None:
        found: Generates = resolve(path, f"the back end of {name!r}")(name, primary=primary)
        return found
    from treegym.models.loading import load_model

    return load_model(name, **loading)
