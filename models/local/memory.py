"""How much memory there is, so that what does not fit is refused before it is begun."""

from __future__ import annotations

from pathlib import Path

from treegym.errors import BackendError

__all__ = ["available_memory", "check_memory"]


def available_memory() -> int | None:
    """Returns the bytes a process may still take, by the machine and by its control group; None where nobody says."""
    found = [value for value in (_of_machine(), _of_group()) if value is not None]
    return min(found) if found else None


def check_memory(needed: int, *, doing: str) -> None:
    """Raises BackendError where `needed` bytes are more than there are."""
    free = available_memory()
    if free is not None and needed > free:
        raise BackendError(
            f"{doing} takes about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            "use a smaller model, or a machine with more"
        )


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux
        return None
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("MemAvailable")


def _of_group() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text("ascii").strip() for name in ("memory.max", "memory.current"))
    except OSError:  # no control group of version 2
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
