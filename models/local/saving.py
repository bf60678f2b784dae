"""Writing a trained model to a directory: the configuration, safetensors weights and the tokenizer, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write
from treegym.folders import put_folder
from treegym.models.base import TextTokenizer
from treegym.models.local.progress import no_progress_bar
from treegym.models.tokens.char_tokenizer import CharTokenizer
from treegym.models.tokens.tokenizers import HuggingFaceTokenizer

__all__ = ["save_model", "whole_directory"]

HOW_LOADED = ("is_local", "local_files_only")  # transformers writes them, but they say nothing of the tokenizer


def save_model(model: Any, tokenizer: TextTokenizer, directory: str | os.PathLike[str]) -> None:
    """Writes a `transformers` model so that `load_model(directory)` loads it; an old directory is replaced whole."""
    with whole_directory(Path(directory)) as staging:
        with no_progress_bar():  # for a write of milliseconds
            model.save_pretrained(staging, safe_serialization=True)
        _save_tokenizer(tokenizer, staging)


@contextmanager
def whole_directory(final: Path) -> Iterator[Path]:
    """Yields a folder beside `final` to write a model to, which takes its place when the block is over, if it succeeds.

    Raises DataError where something else than a model would be replaced.
    """
    if final.exists() and not (final / "config.json").is_file() and any(final.iterdir()):
        raise DataError(f"{final}: exists and holds no model; choose another directory, nothing was written")
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield staging
        put_folder(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _save_tokenizer(tokenizer: TextTokenizer, directory: Path) -> None:
    if isinstance(tokenizer, CharTokenizer):
        tokenizer.save(directory / "tokenizer.json")
        return
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        raise ConfigError(
            f"a {type(tokenizer).__name__} cannot be saved with a model; use a tokenizer that load_model returned"
        )
    tokenizer.hf.save_pretrained(directory)
    # transformers drops the padding and truncation of a tokenizer it has used: the rules are written as they were read
    atomic_write(directory / "tokenizer.json", tokenizer.rules() + "\n")
    file = directory / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(file.read_text("utf-8"))
    kept = {name: value for name, value in settings.items() if name not in HOW_LOADED}
    atomic_write(file, json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
