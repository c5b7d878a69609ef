"""Reductions in C against the same arithmetic in numpy."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import penstock_core
import pytest
from hypothesis import given, settings


def reference(values: np.ndarray, ages: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Mean, deviation and decayed mean, straight from their definitions."""
    decayed = weights * 0.9**ages
    mean = np.average(values, weights=weights)
    return {
        "avg": mean,
        "std": np.sqrt(np.average((values - mean) ** 2, weights=weights)),
        "avg_decay": np.average(values, weights=decayed),
    }


def is_p90(found: float, values: np.ndarray, weights: np.ndarray) -> bool:
    """Whether `found` is the smallest sample at which the cumulative weight reaches 0.9, up to rounding."""
    total = weights.sum()
    below, reached = weights[values < found].sum(), weights[values <= found].sum()
    return found in values and reached >= (0.9 - 1e-6) * total and below <= (0.9 + 1e-6) * total


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["exponential", "normal", "few values", "outlier"]))
    values = {
        "exponential": lambda: rng.exponential(draw(st.floats(1e-6, 1e6)), count),
        "normal": lambda: rng.normal(100, 1, count),
        "few values": lambda: rng.integers(0, 3, count),
        "outlier": lambda: np.where(rng.random(count) < 0.02, 1e9, rng.random(count)),
    }[kind]()
    span = draw(st.sampled_from([1e-9, 1, 60, 3600]))
    ages = np.round(rng.random(count) * span * 256) / 256
    weights = rng.choice([1.0, 1.0, 7.5], count) if draw(st.booleans()) else np.ones(count)
    return values.astype(np.float32), ages.astype(np.float32), weights.astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(samples())
def test_reductions_equal_numpy(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    found = dict(zip(penstock_core.REDUCTIONS, penstock_core.reduce_samples(*drawn), strict=True))
    values, ages, weights = (column.astype(np.float64) for column in drawn)
    scale = np.abs(values).max() or 1
    for name, expected in reference(values, ages, weights).items():
        assert found[name] == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale), name
    assert is_p90(found["p90"], values, weights)
    assert is_p90(found["p90_decay"], values, weights * 0.9 ** (ages - ages.min()))


def test_without_samples_nothing_is_a_number() -> None:
    empty = np.empty(0, np.float32)
    assert np.isnan(penstock_core.reduce_samples(empty, empty)).all()


@pytest.mark.parametrize(
    ("ages", "weights", "text"),
    [([-1, 0], None, "0 to 3600"), ([0, 3601], None, "0 to 3600"), ([0, np.nan], None, "0 to 3600"),
     ([0], None, "as many"), ([0, 0], [1], "as many"), ([0, 0], [1, 0], "positive"), ([0, 0], [1, np.inf], "positive")],
)  # fmt: skip
def test_wrong_samples_are_refused(ages: list[float], weights: list[float] | None, text: str) -> None:
    given_weights = None if weights is None else np.array(weights, np.float32)
    with pytest.raises(ValueError, match=text):
        penstock_core.reduce_samples(np.ones(2, np.float32), np.array(ages, np.float32), given_weights)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), workers=st.integers(1, 3), slots=st.integers(1, 70))
def test_reader_reduces_what_it_shows(
    tmp_path_factory: pytest.TempPathFactory, seed: int, workers: int, slots: int
) -> None:
    path: Path = tmp_path_factory.mktemp("reduce") / "frames"
    rng = np.random.default_rng(seed)
    writer = penstock_core.FrameWriter(str(path), slots, workers=workers)
    now = 5000_000_000
    busy = range(0, slots, 3)
    for slot in busy:
        writer.open_slot(slot, int(rng.integers(1, 256)))
        for worker in range(workers):
            for _ in range(int(rng.integers(0, 300))):
                age = int(rng.integers(0, 100_000_000))
                writer.sample(slot, "fct", float(rng.exponential()), now - age, worker)
    reader = penstock_core.FrameReader(str(path))
    values, ages, valid, seen = reader.samples("fct", now)
    reduced = reader.reduce(["fct"], now)["fct"]
    assert values.shape == ages.shape == valid.shape == (slots, workers * 128)
    assert seen.shape == (slots, workers)
    for slot in range(slots):
        use = valid[slot]
        if not use.any():
            assert np.isnan(reduced[slot]).all()
            continue
        held = use.reshape(workers, 128).sum(axis=1)
        share = np.repeat(seen[slot] / np.maximum(held, 1), 128)[use]
        expected = penstock_core.reduce_samples(values[slot][use], ages[slot][use], share.astype(np.float32))
        assert reduced[slot] == pytest.approx(expected, rel=1e-6)
    assert not valid[[s for s in range(slots) if s not in busy]].any()


def test_samples_of_an_earlier_backend_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    writer = penstock_core.FrameWriter(str(path), 2)
    writer.open_slot(0, 1)
    writer.sample(0, "fct", 1.0, 1_000_000)
    reader = penstock_core.FrameReader(str(path))
    assert reader.samples("fct", 1_000_000)[2].sum() == 1
    assert reader.samples("fct", 1_000_000 + 3_602_000_000)[2].sum() == 0
    writer.open_slot(0, 2)
    assert reader.samples("fct", 1_000_000)[2].sum() == 0
