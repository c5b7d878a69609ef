"""Progress on screen: whole lines on a terminal, and never minutes of silence without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def on_a_terminal(script: str) -> list[str]:
    """Run a script with a terminal as stderr; return the lines that the terminal shows at its end."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, cwd=ROOT, stderr=terminal, stdin=subprocess.DEVNULL) as process:
        os.close(terminal)
        written = b""
        while chunk := _read(controller):
            written += chunk
    os.close(controller)
    assert process.returncode == 0, written
    return screen(written.decode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def screen(text: str) -> list[str]:
    """Return what is left of lines that carriage returns and "clear to the end" write over."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part.removeprefix("\x1b[K") if part.startswith("\x1b[K") else part + shown[len(part) :]
        lines.append(shown)
    return [line for line in lines if line]


def test_no_line_shows_the_rest_of_another() -> None:
    lines = on_a_terminal("""
        import time
        from e2e.cluster.steps import note, step
        with step("a step with a rather long title, longer than all that follow") as report:
            report("a detail that is longer still " * 8)
            time.sleep(0.8)
            with step("programs"):
                time.sleep(0.8)
            note("noted")
    """)
    assert [line.partition("s  ")[2] or line for line in lines] == [
        "programs",
        "noted",
        "a step with a rather long title, longer than all that follow",
    ]


def test_steps_of_several_threads_end_in_lines_of_their_own() -> None:
    lines = on_a_terminal("""
        import time
        from concurrent.futures import ThreadPoolExecutor
        from e2e.cluster.steps import step
        def work(number):
            with step(f"step {number} " + "x" * number) as report:
                for count in range(20):
                    report(f"{count} of 20")
                    time.sleep(0.05)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    """)
    assert sorted(line.partition("s  ")[2] for line in lines) == sorted(
        f"step {number} " + "x" * number for number in range(8)
    )


def test_without_a_terminal_a_long_step_reports_in_lines() -> None:
    script = textwrap.dedent("""
        import time
        from e2e.cluster import steps
        steps.HEARTBEAT_SECONDS = 0.5
        with steps.step("compile") as report:
            for count in range(30):
                report(f"{count} of 30 packages")
                time.sleep(0.1)
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr
    assert any("... compile: " in line and line.endswith(" of 30 packages") for line in lines)
    assert lines[-1].endswith("s  compile")
    assert len(lines) < 10
