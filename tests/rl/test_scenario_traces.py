"""Arrivals from a file of comma-separated values."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from penstock_rl.scenarios import ScenarioError, expand, load

SCENARIO = """\
name: replay
duration: 10
warmUp: 0
servers: [{count: 2, cores: 2}]
arrivals: {ARRIVALS}
classes: [{name: static}, {name: dynamic}]
"""


def write(folder: Path, trace: str, arrivals: str = "{trace: {file: trace.csv}}") -> Path:
    (folder / "trace.csv").write_text(trace)
    path = folder / "replay.yaml"
    path.write_text(SCENARIO.replace("{ARRIVALS}", arrivals))
    return path


def test_a_trace_is_found_beside_its_scenario_and_replayed_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, "kind,arrival,work,bytes\nstatic,1.5,0.02,9\ndynamic,0.5,0.3,8\n\nstatic,12,0.1,7\n")
    found = expand(load(path), seed=1)
    assert "rates" not in found
    assert found["trace"].tolist() == [[0.5, 0.3, 1], [1.5, 0.02, 0]]  # the last one is after the end


@pytest.mark.parametrize("given", ["load: 0.5", "rate: 20"])
def test_times_of_a_trace_are_stretched_to_a_load_or_rate(tmp_path: Path, given: str) -> None:
    lines = "".join(f"{index / 100},0.1,static\n" for index in range(1000))
    path = write(tmp_path, f"arrival,work,kind\n{lines}", f"{{{given}, trace: {{file: trace.csv}}}}")
    found = expand(load(path), seed=1)["trace"]
    assert len(found) == pytest.approx(200, abs=1)  # 20 a second, of 0.1 s each, is half of four cores
    assert np.diff(found[:, 0]) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ("", "trace.csv:1: the first line must name the column arrival; write arrival,work,kind"),
        ("arrival,work\n1,1\n", "trace.csv:1: the first line must name the column kind"),
        ("arrival,work,kind\n", "trace.csv: has no arrival; add lines"),
        (
            "arrival,work,kind\n1,1,static\nx,1,static\n",
            "trace.csv:3: arrival: must be a number from 0 to 86400 (is 'x')",
        ),
        ("arrival,work,kind\n1,nan,static\n", "trace.csv:2: work: must be a number from 1e-06 to 3600 (is 'nan')"),
        ("arrival,work,kind\n1,0,static\n", "trace.csv:2: work: must be a number"),
        ("arrival,work,kind\n-1,1,static\n", "trace.csv:2: arrival: must be a number"),
        (
            "arrival,work,kind\n1,1,other\n",
            "kind: must be the name of a class (is 'other'); use one of static, dynamic",
        ),
        ("arrival,work,kind\n1,1\n", "trace.csv:2: has 2 values, the header names more columns"),
        ("arrival,work,kind\n20,1,static\n", "nothing arrives in the 10 s of the run"),
        ('arrival,work,kind\n"' + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path: Path, trace: str, message: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(write(tmp_path, trace))
    assert message in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_a_trace_that_is_no_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    (tmp_path / "trace.csv").unlink()
    with pytest.raises(
        ScenarioError, match=r"trace\.csv: No such file or directory; arrivals\.trace\.file must name a file"
    ):
        load(path)
    os.mkfifo(tmp_path / "trace.csv")
    with pytest.raises(ScenarioError, match="is not a regular file"):
        load(path)


def test_a_trace_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "arrival,work,kind\n1,1,static\n")
    assert len(expand(load(path), 1)["trace"]) == 1
    write(tmp_path, "arrival,work,kind\n1,1,static\n2,1,dynamic\n")
    assert len(expand(load(path), 1)["trace"]) == 2
