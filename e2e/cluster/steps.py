"""Progress on screen: a line per step with the seconds it took, on stderr so that stdout stays machine readable.

While a step runs, its last report is shown: on a terminal in one line that is written over, elsewhere as a line of its
own every 30 seconds. Steps may run in several threads and inside of one another.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 30.0
_REFRESH_SECONDS = 0.5
_CLEAR = "\r\x1b[K"


class _Running:
    """A step that has not ended."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self.began = time.monotonic()
        self.shown = self.began

    def line(self, now: float) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{now - self.began:7.0f}s  ... {self.title}{detail}"


class _Screen:
    """All running steps, and what of them is on the screen."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.running: list[_Running] = []
        self.occupied = False
        self.ticker: threading.Thread | None = None

    def print(self, line: str) -> None:
        with self.lock:
            self.clear()
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.occupied:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
            self.occupied = False

    def refresh(self) -> None:
        """Show the newest step that has something to report; without a terminal only what was not shown for long."""
        with self.lock:
            if not self.running:
                return
            now = time.monotonic()
            newest = max(self.running, key=lambda step: (bool(step.detail), step.began))
            if sys.stderr.isatty():
                width = shutil.get_terminal_size().columns - 1
                print(_CLEAR + newest.line(now)[:width], end="", file=sys.stderr, flush=True)
                self.occupied = True
            elif now - newest.shown >= HEARTBEAT_SECONDS:
                newest.shown = now
                print(newest.line(now), file=sys.stderr, flush=True)

    def begin(self, step: _Running) -> None:
        with self.lock:
            self.running.append(step)
            if self.ticker is None:
                self.ticker = threading.Thread(target=self._tick, daemon=True)
                self.ticker.start()
        if sys.stderr.isatty():
            self.refresh()

    def end(self, step: _Running, outcome: str) -> None:
        with self.lock:
            self.running.remove(step)
            self.print(f"{time.monotonic() - step.began:7.1f}s  {step.title}{outcome}")

    def _tick(self) -> None:
        while True:
            time.sleep(_REFRESH_SECONDS)
            with self.lock:
                if not self.running:
                    self.ticker = None
                    return
                self.refresh()


_SCREEN = _Screen()


def note(message: str) -> None:
    """Print one line that is not a step."""
    _SCREEN.print(message)


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Print title and duration when the step ended; yield what reports how far it is, in a few words."""
    running = _Running(title)

    def report(detail: str) -> None:
        running.detail = detail

    _SCREEN.begin(running)
    try:
        yield report
    except BaseException:
        _SCREEN.end(running, ": failed")
        raise
    _SCREEN.end(running, "")
