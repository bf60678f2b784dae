"""Writing a trained model to a directory: the configuration, safetensors weights and the tokenizer, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treegym.errors import DataError
from treegym.models.base import TextTokenizer

__all__ = ["save_model"]


def save_model(model: Any, tokenizer: TextTokenizer, directory: str | os.PathLike[str]) -> None:
    """Writes a `transformers` model so that `load_model(directory)` loads it; an old directory is replaced whole."""
    final = Path(directory)
    if final.exists() and not (final / "config.json").is_file() and any(final.iterdir()):
        raise DataError(f"{final}: exists and holds no model; choose another directory, nothing was written")
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        with _quiet():
            model.save_pretrained(staging, safe_serialization=True)
        _save_tokenizer(tokenizer, staging)
        if final.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent))
            os.replace(final, old / "model")
            os.replace(staging, final)
            shutil.rmtree(old)
        else:
            os.replace(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps `transformers` from drawing a progress bar for a write of milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _save_tokenizer(tokenizer: Any, directory: Path) -> None:
    inner: Any = getattr(tokenizer, "tokenizer", None)
    if inner is not None and hasattr(inner, "save_pretrained"):
        inner.save_pretrained(directory)
    else:
        tokenizer.save(directory / "tokenizer.json")
