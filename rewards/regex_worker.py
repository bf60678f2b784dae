"""The helper process of `BoundedRegex`: reads pattern and text, answers 1 or 0 and what matched.

Run as a file; imports none of ours.
"""

from __future__ import annotations

import re
import sys

__all__: list[str] = []


def _read(count: int) -> bytes:
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        raise SystemExit(0)  # the parent closed the pipe
    return data


def _main() -> None:
    while True:
        pattern = _read(int.from_bytes(_read(4), "little")).decode("utf-8", "surrogatepass")
        text = _read(int.from_bytes(_read(4), "little")).decode("utf-8", "surrogatepass")
        match = re.search(pattern, text)
        said = "" if match is None else match[1] if match.re.groups and match[1] is not None else match[0]
        data = said.encode("utf-8", "surrogatepass")
        sys.stdout.buffer.write((b"0" if match is None else b"1") + len(data).to_bytes(4, "little") + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()
