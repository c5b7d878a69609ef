"""The page of trainings compared: intervals over environments, each seed by itself."""

from __future__ import annotations

import numpy as np

from tools.bench_training import page

VERSIONS = {"penstock": "0.1.0", "torch": "2.15.0"}


def found(times, anchor=(0.2, 0.4, 0.3)):
    references = {name: [0.2, 0.4, 0.3] for name in ("lsq", "inverse-duration", "little")} | {"bayes": [0.1, 0.2, 0.15]}
    run = {"algorithm": "ppo", "anchor": "lsq", "decisions": 1200, "anchor_times": list(anchor), "times": times}
    return {"versions": VERSIONS, "references": references, "runs": {"ppo-lsq": run}}


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| `{start}`"))


def test_a_run_is_compared_with_its_anchor_and_with_bayes_by_seed():
    better = (np.array([0.2, 0.4, 0.3]) * 0.9).tolist()
    worse = (np.array([0.2, 0.4, 0.3]) * 1.1).tolist()
    cells = row(page(found({"1": better, "2": worse})), "ppo-lsq").split(" | ")
    assert cells[1:4] == ["`lsq`", "1200", "2"]
    assert cells[4] == "-0.5 % [-0.5, -0.5] (-10.0, +10.0)"  # the geometric mean of .9 and 1.1
    assert "(+80.0, +120.0)" in cells[6]


def test_intervals_are_over_environments():
    cells = row(page(found({"1": [0.1, 0.4, 0.45]})), "ppo-lsq").split(" | ")
    assert cells[4].startswith("-9.1 % [-7")
    assert "(" not in cells[4]  # one seed


def test_a_reference_has_no_difference_from_itself():
    assert row(page(found({"1": [0.2, 0.4, 0.3]})), "bayes").rstrip(" |").endswith("–")
