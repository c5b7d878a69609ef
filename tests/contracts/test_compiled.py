"""Programs in C that tools and tests compile where they first need them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.compiled import compiled

ROOT = Path(__file__).parents[2]
PROGRAM = "int main(void) { return %d; }\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "program.c"
    path.write_text(PROGRAM % 1)
    return path


def status(program: Path) -> int:
    return subprocess.run([program], check=False).returncode


def test_compiles_again_when_the_source_has_changed(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "build/program"
    assert status(compiled(source, target)) == 1
    made = target.stat().st_ino
    assert compiled(source, target).stat().st_ino == made
    source.write_text(PROGRAM % 2)
    os.utime(source, (target.stat().st_mtime + 1,) * 2)
    assert status(compiled(source, target)) == 2


def test_several_processes_compile_at_once(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "program"
    script = (
        "import sys; from pathlib import Path; from tools.compiled import compiled; compiled(*map(Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, str(source), str(target)]
    programs = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [program.wait() for program in programs] == [0] * 4
    assert status(target) == 1
    assert sorted(tmp_path.iterdir()) == [target, source]


def test_a_warning_is_an_error_that_leaves_the_program_of_before(source: Path, tmp_path: Path) -> None:
    target = compiled(source, tmp_path / "program")
    source.write_text("int main(void) { int unused; return 3; }\n")
    os.utime(source, (target.stat().st_mtime + 1,) * 2)
    with pytest.raises(subprocess.CalledProcessError):
        compiled(source, target)
    assert status(target) == 1
