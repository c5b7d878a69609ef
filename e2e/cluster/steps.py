"""Progress on screen: a line per step with the seconds it took, on stderr so that stdout stays machine readable."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def note(message: str) -> None:
    """Print one line that is not a step."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title when the step begins (if somebody watches) and title and duration when it ended."""
    watched = sys.stderr.isatty()
    if watched:
        print(f"     ...  {title}", end="\r", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        note(f"{time.monotonic() - began:7.1f}s  {title}: failed")
        raise
    note(f"{time.monotonic() - began:7.1f}s  {title}")
