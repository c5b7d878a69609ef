"""What is generated is current, and the generator notices when it isn't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools import generate

ROOT = Path(__file__).resolve().parents[2]


def test_everything_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_second_run_changes_nothing_and_drift_is_named(tmp_path: Path) -> None:
    files = generate.GENERATORS["crds"]()
    assert generate.write(files, tmp_path) == []
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in files}
    assert generate.compare(files, tmp_path) == []
    generate.write(files, tmp_path)
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in files} == before

    drifted = next(iter(files))
    (tmp_path / drifted).write_text(files[drifted].replace("maximum: 65535", "maximum: 65536"))
    (problem,) = generate.compare(files, tmp_path)
    assert str(drifted) in problem
    assert "make generate" in problem
    assert "-" in problem and "maximum: 65536" in problem


def test_leftovers_are_named(tmp_path: Path) -> None:
    files = generate.GENERATORS["crds"]()
    generate.write(files, tmp_path)
    (tmp_path / "crds/manifests/old.yaml").write_text("")
    assert generate.leftovers(files, tmp_path) == [Path("crds/manifests/old.yaml")]


def test_examples_are_checked(tmp_path: Path) -> None:
    bad = tmp_path / "examples" / "bad.yaml"
    bad.parent.mkdir()
    bad.write_text(
        "apiVersion: penstock.dev/v1alpha1\nkind: RLPolicy\nmetadata: {name: x}\nspec: {heuristik: little}\n"
    )
    problems = [problem for check in generate.CHECKS for problem in check(tmp_path)]
    assert "did you mean heuristic?" in problems[0]
    assert "examples/bad.yaml" in problems[0]
