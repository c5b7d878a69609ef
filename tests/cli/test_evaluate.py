"""`penstock evaluate` as a user meets it."""

from pathlib import Path

import pytest
from penstock_cli.main import app
from penstock_rl.evaluation import results
from typer.testing import CliRunner, Result

SCENARIO = """
name: {name}
duration: 8
warmUp: 1
servers: [{{count: 2, cores: 1}}, {{count: 2, cores: 4}}]
arrivals: {{load: 0.7}}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SCENARIO.format(name="mine"))
    return path


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--processes", "1"])


def test_a_scenario_of_ones_own(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = evaluate("--scenarios", scenario, "--policies", "l/d,sed-best", "--seeds", 2, "--out", out)
    assert ended.exit_code == 0, ended.output
    assert "| l/d |" in ended.stdout
    assert str(out) in ended.stdout
    page = (out / "README.md").read_text()
    assert f"penstock evaluate --scenarios {scenario} --policies l/d,sed-best --seeds 2" in page
    assert "| best static SED |" in page
    assert "capacity^2" not in page
    assert {path.name for path in out.iterdir()} == {
        "README.md", "gap.svg", "results.json", "runs.jsonl", "scenarios.svg",
    }  # fmt: skip
    assert results.load(out / "results.json").scenarios == ("mine",)


def test_a_directory_and_more_seeds_later(scenario: Path, tmp_path: Path) -> None:
    scenario.with_name("other.yaml").write_text(SCENARIO.format(name="other"))
    arguments = ["--scenarios", tmp_path, "--policies", "lsq", "--out", tmp_path / "out"]
    assert evaluate(*arguments, "--seeds", 1).exit_code == 0
    first = (tmp_path / "out" / "results.json").read_text()
    assert evaluate(*arguments, "--seeds", 2).exit_code == 0
    assert evaluate(*arguments, "--seeds", 1).exit_code == 0
    assert (tmp_path / "out" / "results.json").read_text() == first
    assert results.load(tmp_path / "out" / "results.json").scenarios == ("mine", "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "lsq,best"], "policy 'best' is not known; use some of equal, "),
        (["--policies", ","], "policy '' is not known"),
        (["--scenarios", "nothing.yaml"], "nothing.yaml"),
        (["--scenarios", "unseen:0"], "unseen:0: '0' is not a number from 1 to 96; write unseen:16"),
        (["--scenarios", "unseen:x"], "unseen:x: 'x' is not a number from 1 to 96"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "x"], "--seeds"),
    ],
)
def test_wrong_arguments_are_named(scenario: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    sources = [] if "--scenarios" in arguments else ["--scenarios", scenario]
    ended = evaluate(*sources, *arguments, "--out", tmp_path / "out")
    assert ended.exit_code != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.output
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_two_scenarios_of_a_name(scenario: Path, tmp_path: Path) -> None:
    ended = evaluate("--scenarios", scenario, "--scenarios", scenario, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert "scenario mine is there twice; rename one" in ended.stderr


def test_an_empty_directory(tmp_path: Path) -> None:
    ended = evaluate("--scenarios", tmp_path, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert "has no YAML file; name a directory of scenarios" in ended.stderr


def test_a_broken_scenario_names_field_and_fix(scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(SCENARIO.format(name="mine").replace("warmUp: 1", "warmUp: 9"))
    ended = evaluate("--scenarios", scenario, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert "mine.yaml" in ended.stderr
    assert "warmUp" in ended.stderr


def test_a_changed_scenario_needs_another_directory(scenario: Path, tmp_path: Path) -> None:
    arguments = ["--scenarios", scenario, "--policies", "lsq", "--seeds", 1, "--out", tmp_path / "out"]
    assert evaluate(*arguments).exit_code == 0
    scenario.write_text(scenario.read_text().replace("load: 0.7", "load: 0.6"))
    ended = evaluate(*arguments)
    assert ended.exit_code == 1
    assert (
        "scenario mine were made with another content of it; remove the file or name another directory" in ended.stderr
    )


def test_an_output_that_is_a_file(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    ended = evaluate("--scenarios", scenario, "--out", out)
    assert ended.exit_code == 1
    assert "out" in ended.stderr
    assert "Traceback" not in ended.output
