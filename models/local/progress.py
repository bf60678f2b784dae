"""The progress bars of `transformers`, kept off where they say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_progress_bar"]


@contextmanager
def no_progress_bar(*, when: bool = True) -> Iterator[None]:
    """Keeps `transformers` from drawing a bar; the setting is put back afterwards."""
    from transformers.utils import logging

    shown = when and logging.is_progress_bar_enabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
