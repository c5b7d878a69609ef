"""A training by the command line that is killed continues as if it had not been."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("torchrl", reason="the extra `train` is not installed")
pytest.importorskip("tensorboard", reason="the extra `train` is not installed")

RECIPE = """
name: killed
algorithm: {name: sac-gru, updates: 2, batchSequences: 8, sequence: 4, burnIn: 2}
scenarios:
  environments: 2
  seconds: 5
  evaluationEnvironments: 2
  curriculum: [{scenarios: [small.yaml]}]
network: {hidden: 8}
training: {iterations: 16, evaluateEvery: 2, checkpointEvery: 2, threads: 1, device: cpu}
"""
SCENARIO = """
name: small
duration: 6
warmUp: 1
balancers: {count: 2}
servers: [{count: 2, cores: 1}, {cores: 4}]
arrivals: {load: 0.7}
classes: [{work: {mean: 0.1}}]
"""


def command(folder, *options):
    return [sys.executable, "-m", "penstock_cli", "train", folder / "killed.yaml", "-o", folder / "run", *options]


def train(folder, *options):
    done = subprocess.run(command(folder, *options), check=True, capture_output=True, text=True)
    assert "iteration 16: mean completion time" in done.stdout
    return [json.loads(line) for line in (folder / "run/seed-1/evaluations.jsonl").read_text().splitlines()]


def kill_after_first_checkpoint(folder):
    with subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (folder / "run/seed-1/checkpoint.pt").exists():
            time.sleep(0.01)
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


@pytest.mark.timeout(900)
def test_killed_training_resumes_with_the_same_curve_and_model(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "killed.yaml").write_text(RECIPE)
        (tmp_path / name / "small.yaml").write_text(SCENARIO)
    whole = train(tmp_path / "whole")
    kill_after_first_checkpoint(tmp_path / "killed")
    resumed = train(tmp_path / "killed", "--resume")
    assert [each["iteration"] for each in whole] == list(range(0, 17, 2))
    assert resumed == whole
    models = [(tmp_path / name / "run/seed-1/killed.npz").read_bytes() for name in ("whole", "killed")]
    assert models[0] == models[1]
