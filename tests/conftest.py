"""What all tests share."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Lets Ctrl-C through to what the tests start.

    A shell starts background jobs with SIGINT ignored, and everything started from there inherits that; tests of what
    Ctrl-C does would then wait for a signal that never comes.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
