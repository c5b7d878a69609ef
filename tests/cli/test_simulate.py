"""`penstock simulate` as a user meets it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from penstock_cli.main import app
from typer.testing import CliRunner, Result

SCENARIO = """
name: mine
duration: 20
warmUp: 1
servers: [{count: 2, cores: 1}, {count: 2, cores: 4}]
arrivals: {load: 0.7}
disturbances: [{failure: {at: 6, lasting: 4, detection: 1, servers: [2]}}]
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SCENARIO)
    return path


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def test_periods_with_what_happens_in_them(scenario: Path) -> None:
    ended = simulate(scenario, "--every", 5)
    assert ended.exit_code == 0, ended.output
    lines = ended.stdout.splitlines()
    rows = [line.split() for line in lines[: lines.index("")] if line.strip()[0].isdigit()]
    assert [row[0] for row in rows] == ["5.0s", "10.0s", "15.0s", "20.0s"]
    assert "  -- 6.0 s: server 2 stop" in lines
    assert (
        lines.index("  -- 6.0 s: server 2 stop") == lines.index(next(x for x in lines if x.strip()[:4] == "5.0s")) + 1
    )
    assert int(rows[1][4]) > 0, "requests fail while the server is away"
    assert int(rows[3][4]) == 0
    assert rows[0][5].endswith("%")


def test_servers_are_listed_without_the_warm_up(scenario: Path) -> None:
    lines = simulate(scenario, "--every", 5).stdout.splitlines()
    rows = [line.split() for line in lines[lines.index("") + 2 :]]
    assert [row[:2] for row in rows] == [["0", "1"], ["1", "1"], ["2", "4"], ["3", "4"]]
    shares, used = ([float(row[column].rstrip("%")) for row in rows] for column in (2, 6))
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares[3] > shares[2] > shares[0]
    assert all(40 < each <= 100 for each in used)
    assert [int(row[5]) > 0 for row in rows] == [False, False, True, False]


def test_disturbances_are_named_in_words(scenario: Path) -> None:
    slow = "[{noisyNeighbor: {at: 0, lasting: 5, factor: 0.25, servers: [1]}}, {remove: {at: 8, servers: [0]}}]"
    text = SCENARIO.splitlines()
    scenario.write_text("\n".join([*text[:-1], f"disturbances: {slow}"]))
    lines = simulate(scenario, "--every", 5).stdout.splitlines()
    assert [line for line in lines if line.startswith("  --")] == [
        "  -- 0.0 s: server 1 speed x 0.25",
        "  -- 5.0 s: server 1 speed x 1",
        "  -- 8.0 s: server 0 removed",
    ]


def test_watch_shows_the_servers_on_a_terminal(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("duration: 20", "duration: 8\ninterval: 0.5"))
    main, terminal = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "penstock_cli", "simulate", str(scenario), "--watch", "--pace", "1000"]
    running = subprocess.Popen(command, stdout=terminal, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    shown = b"".join(iter(lambda: read(main), b"")).decode()
    os.close(main)
    assert running.wait() == 0
    for part in ("mine", "of 8 s", "req/s", "server 2 stop", "capacity"):
        assert part in shown


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end was closed
        return b""


def test_watch_needs_a_terminal(scenario: Path) -> None:
    ended = simulate(scenario, "--watch")
    assert ended.exit_code == 1
    assert "--watch: standard output is not a terminal; leave it out" in ended.stderr


def test_the_same_seed_gives_the_same_lines(scenario: Path) -> None:
    first, second, other = (simulate(scenario, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("policy", ["oracle-sed", "lsq+active", "sed", "1/d"])
def test_any_evaluated_policy(scenario: Path, policy: str) -> None:
    assert simulate(scenario, "--policy", policy).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "none"], "policy 'none' is not known; use one of equal, "),
        (["--policy", "oracle"], "policy 'oracle' is not known"),
        (["--every", "50"], "--every: 50 is longer than the scenario, 20 s"),
        (["--every", "0"], "--every"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_arguments_are_named(scenario: Path, arguments: list[str], message: str) -> None:
    ended = simulate(scenario, *arguments)
    assert ended.exit_code != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = simulate(tmp_path / "none.yaml")
    assert ended.exit_code == 1
    assert "none.yaml: is no file, and no scenario that comes with Penstock; use one of churn, " in ended.stderr
