"""`penstock train` and `penstock export` check what they are given before anything large is loaded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from penstock_cli import train
from penstock_cli.main import app
from typer.testing import CliRunner

GOOD = "name: small\nalgorithm: {name: ppo}\n"


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def test_without_the_extra_the_package_is_named(recipe, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for arguments in (("train", recipe), ("export", recipe, "-o", "model.npz")):
        done = run(*arguments)
        assert done.exit_code == 1
        assert "torch" in done.output
        assert "pip install 'penstock[train]'" in done.output


def test_a_wrong_recipe_is_refused_before_torch_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD + "training: {iterations: -1}\n")
    done = run("train", path)
    assert done.exit_code == 1
    assert "training.iterations" in done.output
    assert "torch" not in done.output


def test_wrong_options_are_refused(recipe):
    done = run("train", recipe, "--device", "tpu")
    assert done.exit_code == 1
    assert "--device" in done.output
    assert "cuda" in done.output


def test_a_missing_recipe_is_named(tmp_path):
    done = run("train", tmp_path / "none.yaml")
    assert done.exit_code == 1
    assert "none.yaml: No such file" in done.output


def test_commands_load_no_torch():
    program = "import sys, penstock_cli.main; sys.exit(any(name.startswith('torch') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_progress_shows_evaluation_and_losses():
    from penstock_rl.training.loop import Evaluation

    found = Evaluation(10, -0.123, -0.15, -0.1)
    line = train._line({"losses/loss": 0.5, "time/learn": 1.0}, found)
    assert line == "evaluation -12.3 %  loss 0.5"
    assert "-12.3 % [-15.0, -10.0] against its start, `lsq`" in train._against(found, "lsq")
