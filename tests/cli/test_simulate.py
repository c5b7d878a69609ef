"""`penstock simulate` as a user meets it."""

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
    rows = [line.split() for line in lines if line.strip()[0].isdigit()]
    assert [row[0] for row in rows] == ["5.0s", "10.0s", "15.0s", "20.0s"]
    assert "  -- 6.0 s: server 2 stop" in lines
    assert (
        lines.index("  -- 6.0 s: server 2 stop") == lines.index(next(x for x in lines if x.strip()[:4] == "5.0s")) + 1
    )
    assert int(rows[1][4]) > 0, "requests fail while the server is away"
    assert int(rows[3][4]) == 0
    assert rows[0][5].endswith("%")


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
    assert "none.yaml" in ended.stderr
