"""One run at a time in a folder: a lock file that names its owner and that no dead owner can leave locked."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError
from treegym.files import told_by

__all__ = ["LOCK", "held"]

LOCK = ".treegym.lock"  # its name in a folder
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def held(path: str | os.PathLike[str], *, what: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs, or raises ConfigError that names the process holding it.

    The kernel lets go of a lock when its owner dies, however it dies, so a file left behind stops nobody. On file
    systems without locks the host and the process in the file decide.

    Args:
        path: the lock file; its folder must exist.
        what: what is locked, as the message calls it.
    """
    name = Path(path)
    handle = _taken(name, what)
    try:
        yield
    finally:
        with suppress(OSError):  # the name first: who opened it meanwhile sees that it is gone, and looks again
            name.unlink()
        os.close(handle)


def _taken(name: Path, what: str) -> int:
    while True:
        with told_by(name.parent):
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            locked, owner = _locked(handle), _owner(handle)
            if locked is False or (locked is None and _alive(owner)):
                who = f"process {owner['process']} on {owner['host']}" if owner else "another process"
                raise ConfigError(f"{what} is in use by {who}: wait until it has ended, or choose another ({name})")
            if _current(handle, name):
                _sign(handle, name)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _sign(handle: int, name: Path) -> None:
    """Writes who holds the lock; a disk that does not take it gets the file back, and is told of by its folder."""
    owner = json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode()
    try:
        with told_by(name.parent):
            os.ftruncate(handle, 0)
            if os.pwrite(handle, owner, 0) != len(owner):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        name.unlink(missing_ok=True)
        raise


def _locked(handle: int) -> bool | None:
    """Returns whether the lock was got; None where the file system has no locks."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _owner(handle: int) -> dict[str, Any] | None:
    try:
        owner = json.loads(os.pread(handle, 1000, 0))
        return {"host": str(owner["host"])[:60], "process": int(owner["process"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # not written yet


def _alive(owner: dict[str, Any] | None) -> bool:
    """Returns whether an owner may still be there; of another host's processes nothing is known."""
    if owner is None or owner["host"] != socket.gethostname():
        return owner is not None
    try:
        os.kill(owner["process"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return owner["process"] != os.getpid()


def _current(handle: int, name: Path) -> bool:
    """Returns whether the name still leads to the file that was opened: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), name.stat())
    except FileNotFoundError:
        return False
