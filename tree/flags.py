"""The bits of a node's `flags`."""

from __future__ import annotations

__all__ = ["ALL", "END", "EOS", "EXPANDED", "GREEDY", "PUNCTUATION", "STOPPED"]

EXPANDED = 1  # its children are known
EOS = 2  # its token is the end-of-sequence token
STOPPED = 4  # a terminal detector ended the text here
PUNCTUATION = 8  # its text ends in punctuation that may end a sentence
GREEDY = 16  # part of the primary's own continuation that closes a frontier
END = EOS | STOPPED  # a real terminal
ALL = EXPANDED | EOS | STOPPED | PUNCTUATION | GREEDY
