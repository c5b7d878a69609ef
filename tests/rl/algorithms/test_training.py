"""Each algorithm learns a problem without dynamics, and a training that was stopped continues with the same numbers."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("torchrl", reason="the extra `train` is not installed")
pytest.importorskip("tensorboard", reason="the extra `train` is not installed")

from penstock_rl import recipes  # noqa: E402 - after the check
from penstock_rl.algorithms import checkpoints  # noqa: E402
from penstock_rl.algorithms.imitation import marginal_delay  # noqa: E402
from penstock_rl.training.collect import Task, missing_features  # noqa: E402
from penstock_rl.training.curriculum import Draw  # noqa: E402
from penstock_rl.training.layout import Layout  # noqa: E402
from penstock_rl.training.loop import CHECKPOINT, EVALUATIONS, Options, Training, TrainingError  # noqa: E402

from tests.support.tiny_batch import BALANCERS, FEATURES, SLOTS, TRUTH, TinySource  # noqa: E402

COMMON = "batch_sequences: 64, sequence: 4, learning_rate: 0.003, gamma: 0.1"
REPLAY = f"{COMMON}, updates: 30, burn_in: 2, buffer_sequences: 2000, trace: 0.1"
ALGORITHMS = {
    "sac-gru": f"{{name: sac-gru, {REPLAY}, initial_temperature: 0.01, target_entropy: -2.0}}",
    "rlb-sac": f"{{name: rlb-sac, {REPLAY}, initial_temperature: 0.01, target_entropy: -2.0}}",
    "qmix": f"{{name: qmix, {REPLAY}, levels: [0.6, 0.8, 1.0, 1.25, 1.6]}}",
    "qmix-independent": f"{{name: qmix, mixing: independent, {REPLAY}, levels: [0.6, 0.8, 1.0, 1.25, 1.6]}}",
    "ppo": f"{{name: ppo, {COMMON}, epochs: 8, gae_lambda: 0.1}}",
    "imitation": f"{{name: imitation, {COMMON}, updates: 30, burn_in: 2}}",
}
# The anchor's loss is E[(BEST x hint)^2] = 1/12, on a completion time of 0.1: perfection is a change of -45 %.
BARS = {"sac-gru": -0.25, "rlb-sac": -0.25, "qmix": -0.2, "qmix-independent": -0.2, "ppo": -0.15}


def recipe(name, iterations=12, extra="", updates=30):
    algorithm = ALGORITHMS[name].replace("updates: 30", f"updates: {updates}")
    return recipes.read(
        f"name: tiny\nalgorithm: {algorithm}\n"
        "scenarios: {environments: 16, evaluation_environments: 16, max_backends: 5, max_balancers: 2,"
        " curriculum: [{scenarios: [control]}]}\n"
        "network: {hidden: 16, weight_limit: 0.6}\n"
        f"training: {{iterations: {iterations}, evaluate_every: 4, checkpoint_every: 4, threads: 1,"
        f" device: cpu{extra}}}\n",
        "tiny.yaml",
    )


def training(folder, name, resume=False, **options):
    folder.mkdir(exist_ok=True)
    wanted = recipe(name, **options)
    return Training(wanted, folder, Options(folder / "run", resume), TinySource(wanted.feature_groups))


def ignore(*_):
    """Report nothing."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BARS)
def test_algorithm_learns_a_small_problem(tmp_path, name):
    iterations = 40 if name == "ppo" else 16
    run = training(tmp_path, name, iterations=iterations, extra=", feature_dropout: 0.0")
    run.run(ignore)
    first, last = run.evaluations[0], run.evaluations[-1]
    assert first.change == pytest.approx(0.0, abs=0.01) or name.startswith("qmix")
    assert last.change < BARS[name]
    assert last.high < first.low or name.startswith("qmix")


def test_imitation_learns_which_backend_is_fast(tmp_path):
    # It follows no reward: it lowers the delay of its choice above that of the best one.
    excess: list[float] = []

    def keep(iteration, metrics, _):
        if iteration > 0:
            excess.append(metrics["losses/excess_delay"])

    training(tmp_path, "imitation", iterations=16, extra=", feature_dropout: 0.0").run(keep)
    assert sum(excess[-4:]) / 4 < 0.5 * excess[0]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_stopped_training_continues_with_the_same_numbers(tmp_path, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    curves: dict[str, list[Any]] = {"whole": [], "parts": []}

    def keep(to):
        def report(iteration, metrics, _):
            to.append((iteration, {key: value for key, value in metrics.items() if not key.startswith("time/")}))

        return report

    training(whole, name, iterations=8, updates=3).run(keep(curves["whole"]))
    training(parts, name, iterations=8, updates=3).run(
        keep(curves["parts"]), until=6
    )  # two iterations after the checkpoint
    curves["parts"] = [each for each in curves["parts"] if each[0] <= 4]
    again = training(parts, name, iterations=8, updates=3, resume=True)
    assert again.iteration == 4
    after: list[Any] = []
    again.run(keep(after))
    curves["parts"] += after[1:]  # the first report repeats the checkpoint's
    assert curves["parts"] == curves["whole"]
    assert same(*[checkpoints.load(each / "run" / CHECKPOINT)["learner"] for each in (whole, parts)])
    lines = [(each / "run" / EVALUATIONS).read_text() for each in (whole, parts)]
    assert lines[0] == lines[1]


def same(left, right):
    """Compare states bit by bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        return torch.equal(left.nan_to_num(1e9), right.nan_to_num(1e9))
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


def test_resume_with_another_recipe_is_refused(tmp_path):
    training(tmp_path, "ppo", iterations=4).run(ignore)
    with pytest.raises(TrainingError, match="made by another recipe"):
        training(tmp_path, "imitation", iterations=4, resume=True)


def test_a_folder_with_a_checkpoint_is_kept(tmp_path):
    training(tmp_path, "ppo", iterations=4).run(ignore)
    with pytest.raises(TrainingError, match="--resume"):
        training(tmp_path, "ppo", iterations=4)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", gzip.compress(b"PK\x03\x04"), gzip.compress(b"\x80\x04\x95"), os.urandom(1000)]
)
def test_broken_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(checkpoints.CheckpointError, match=r"checkpoint\.pt"):
        checkpoints.load(path)


def test_a_checkpoint_executes_nothing(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    checkpoints.save(tmp_path / "checkpoint.pt", {"learner": Payload()})
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["sac-gru", "imitation"])
def test_a_finished_training_keeps_no_replay(tmp_path, name):
    run = training(tmp_path, name, iterations=4, updates=1)
    run.run(ignore, until=3)
    run.save()
    stopped = checkpoints.load(tmp_path / "run" / CHECKPOINT)["learner"]
    run.run(ignore)
    finished = checkpoints.load(tmp_path / "run" / CHECKPOINT)["learner"]
    assert stopped["replay"]["contents"]["features"].dtype == torch.float16
    assert finished.keys() == stopped.keys() - {"replay"}


@pytest.mark.timeout(600)
def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    found = []
    for workers in (0, 1, 2):
        extra = f", batches: 2, workers: {workers}"
        run = training(tmp_path / str(workers), "sac-gru", iterations=2, updates=2, extra=extra)
        run.run(ignore)
        found.append((run.evaluations, checkpoints.load(run.options.folder / CHECKPOINT)["learner"]))
    for evaluations, state in found[1:]:
        assert evaluations == found[0][0]
        assert same(state, found[0][1])


def test_dropout_takes_whole_groups_and_never_what_is_always_there():
    layout = Layout(FEATURES, TRUTH, BALANCERS, SLOTS)
    draw = Draw(tuple({"seed": seed} for seed in range(400)), 10.0, "full", "nat")
    missing = missing_features(layout, Task(draw, 0, 7, explore=True, paired=False, dropout=0.5))
    assert not missing[:, 0].any()
    assert (missing[:, 1] == missing[:, 2]).all()
    assert 0.4 < missing[:, 1].mean() < 0.6
    assert (missing[:, 1] != missing[:, 4]).any()


def test_marginal_delay_is_the_derivative_of_the_delay_of_all():
    def total(cores, speed, count):
        return count * max(1.0, count / cores) / speed

    for cores, speed, count in [(4, 1.0, 0), (4, 2.0, 3), (4, 0.5, 4), (1, 1.0, 7)]:
        expected = total(cores, speed, count + 1) - total(cores, speed, count)
        found = marginal_delay(*(torch.tensor(float(each)) for each in (cores, speed, count)))
        assert float(found) == pytest.approx(expected)
