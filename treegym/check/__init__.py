"""Holding an environment against its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.check.suite import check_suite

__all__ = ["check_suite"]

__getattr__, __dir__ = lazy_face(__name__, {"check_suite": "suite"})
