"""Ways to compare an answer with its reference: exact, numeric, last number, regular expression within a time bound."""

from __future__ import annotations

import math
import os
import re
import select
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

from treegym.errors import ConfigError, RewardError

__all__ = ["NUMBER", "BoundedRegex", "exact_match", "last_number", "numeric_match", "same_answer", "to_number"]

# Each character fits in one place only, so that matching takes linear time whatever the text.
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?%?")
_LONGEST = 100_000  # characters of an answer that are looked at


def exact_match(text: str, reference: str) -> bool:
    """Returns whether the two are equal apart from white space at the ends and repeated inside."""
    return " ".join(text.split()) == " ".join(reference.split())


def to_number(text: str) -> float | None:
    """Returns the number that the whole text is (``1,234``, ``-2.5e3``, ``1/3``, ``50%``), else None."""
    match = NUMBER.fullmatch(text.strip().removeprefix("$"))
    if match is None:
        return None
    plain = match[0].replace(",", "").replace(" ", "")
    percent = plain.endswith("%")
    try:
        value = float(Fraction(plain.rstrip("%"))) if "/" in plain else float(plain.rstrip("%"))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return value / 100.0 if percent else value


def last_number(text: str) -> float | None:
    """Returns the last number in a text, else None; a full stop that ends a sentence is not a decimal point."""
    found = None
    for match in NUMBER.finditer(text[-_LONGEST:]):
        found = match
    return None if found is None else to_number(found[0].rstrip(".,"))


def numeric_match(text: str, reference: str, *, tolerance: float = 1e-6) -> bool:
    """Returns whether the last number of the text equals the reference number within a relative tolerance."""
    expected = to_number(reference)
    if expected is None:
        expected = last_number(reference)
    if expected is None:
        return False
    got = last_number(text)
    return got is not None and math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)


def same_answer(text: str, reference: str) -> bool:
    """Returns whether an answer is right by the best comparison its reference allows.

    A reference that is a number is compared with the last number of the text; any other reference must be the whole
    text, or its last sentence.
    """
    if to_number(reference) is not None:
        return numeric_match(text, reference)
    if exact_match(text, reference):
        return True
    sentences = [part for part in re.split(r"[.!?\n]+", text) if part.strip()]
    return bool(sentences) and exact_match(sentences[-1], reference)


class BoundedRegex:
    """A regular expression searched in a helper process, so that one that never ends can be stopped.

    Args:
        pattern: the expression; ``{reference}`` in it stands for the escaped reference answer.
        seconds: longest time for one search.
    """

    def __init__(self, pattern: str, *, seconds: float = 1.0) -> None:
        if not isinstance(pattern, str):
            raise ConfigError(f"the regular expression is {pattern!r}; a text was expected")
        try:
            re.compile(self._filled(pattern, "x"))
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"the regular expression {pattern[:80]!r} is not valid: {error}") from error
        if not seconds > 0:
            raise ConfigError(f"the time bound of a regular expression is {seconds}; more than 0 seconds was expected")
        self.pattern, self.seconds = pattern, seconds
        self._owner = 0  # the process that started the helper
        self._helper: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize | None = None

    @staticmethod
    def _filled(pattern: str, reference: str) -> str:
        return pattern.replace("{reference}", re.escape(reference))

    def search(self, text: str, reference: str = "") -> bool:
        """Returns whether the expression is found in the text; raises RewardError past the time bound."""
        return self.find(text, reference) is not None

    def find(self, text: str, reference: str = "") -> str | None:
        """Returns the first group of the first match, all of it where there are no groups, or None."""
        try:
            for piece in (self._filled(self.pattern, reference), text[-_LONGEST:]):
                self._send(piece.encode("utf-8", "surrogatepass"))
        except OSError:  # it was killed; the next search starts another
            self.close()
            raise RewardError(f"the helper that searches {self.pattern!r} ended unexpectedly") from None
        helper = self._running()
        assert helper.stdout is not None
        poll = select.poll()  # unlike select, for any number of open files
        poll.register(helper.stdout, select.POLLIN)
        if not poll.poll(1000.0 * self.seconds):
            self.close()
            raise RewardError(
                f"the regular expression {self.pattern!r} did not finish within {self.seconds} s; "
                "simplify it (nested repetitions such as (a+)+ take exponential time)"
            )
        head = helper.stdout.read(5)  # found or not, and the bytes of the match
        size = int.from_bytes(head[1:], "little")
        found = b""
        while len(head) == 5 and len(found) < size:
            more = helper.stdout.read(size - len(found))
            if not more:
                break
            found += more
        if len(head) < 5 or head[:1] not in (b"0", b"1") or len(found) < size:
            self.close()
            raise RewardError(f"the helper that searches {self.pattern!r} ended unexpectedly")
        return found.decode("utf-8", "surrogatepass") if head[:1] == b"1" else None

    def close(self) -> None:
        """Stops the helper process; the next search starts a new one."""
        if self._finalizer is not None:
            self._finalizer()
        self._helper = self._finalizer = None

    def _send(self, piece: bytes) -> None:
        helper = self._running()
        assert helper.stdin is not None
        helper.stdin.write(len(piece).to_bytes(4, "little") + piece)
        helper.stdin.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._helper is not None and self._owner != os.getpid():
            self._helper = self._finalizer = None  # a forked process must not talk into its parent's pipe
        if self._helper is None:
            self._owner = os.getpid()
            worker = Path(__file__).with_name("regex_worker.py")
            self._helper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            self._finalizer = weakref.finalize(self, _stop, self._helper)
        return self._helper

    def __getstate__(self) -> dict[str, object]:
        settings = {"pattern": self.pattern, "seconds": self.seconds}
        return {**settings, "_helper": None, "_finalizer": None, "_owner": 0}


def _stop(helper: subprocess.Popen[bytes]) -> None:
    helper.kill()
    helper.wait()
    for pipe in (helper.stdin, helper.stdout):
        if pipe is not None:
            pipe.close()
