"""A whole folder in the place of another: at every moment the old one stands there or the new one."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

__all__ = ["put_folder"]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an older kernel, or a file system that cannot exchange


def put_folder(new: Path, place: Path) -> None:
    """Moves `new`, a folder or a file, to `place`; what stood there is then where `new` was, for the caller to remove.

    Both lie on one file system. Linux exchanges the two names in one step. Elsewhere a kill between two renames
    leaves nothing at `place`, with the old and the new whole beside it; an error puts the old back.
    """
    if not os.path.lexists(place) or not (place.is_dir() or new.is_dir()):
        os.replace(new, place)
        return
    if _exchanged(new, place):
        return
    before = new.with_name(f"{new.name}.before")
    os.replace(place, before)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(before, place)
        raise
    os.replace(before, new)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two names in one step, if the system can."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))
