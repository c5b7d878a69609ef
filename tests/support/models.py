"""Model files and observations for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from penstock_agent import features
from penstock_agent.models import Card, Head, Metadata
from penstock_agent.models.network import shapes
from penstock_agent.observation import REDUCTIONS, Observation
from penstock_rl.export import export

GAUGES = ("n_flow_on", "n_active")
BASIC = ("flow_duration", "fct")
RECORDED_FROM = {"n_active": ("full",), "n_turn": ("full",)} | dict.fromkeys(
    ("n_rtr", "n_ooo", "n_dpk"), ("basic", "full")
)
"""Levels of counters that not all levels have."""
ALL_FEATURES = features.known()
SOME_FEATURES = ("counts/open", "active/active_relative", "fct/avg_decay", "anchor/log_weight", "context/balancers")


def metadata(**changes) -> Metadata:
    given: dict[str, Any] = {
        "features": SOME_FEATURES,
        "features_version": features.VERSION,
        "anchor": "lsq",
        "hidden": 8,
        "memory": True,
    }
    return Metadata(**given | changes)


def arrays(described: Metadata, seed: int = 0, levels: int = 5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes(described, levels).items()}
    made["std"] = np.abs(made["std"]) + np.float32(0.5)
    if described.head is Head.CONTINUOUS:
        made["limits"] = np.array([1.0, 0.5 if described.use_base else 0.0], dtype=np.float32)
    return made


def model_file(seed: int = 0, **changes) -> bytes:
    described = metadata(**changes)
    return export(arrays(described, seed), described, Card(name="of-a-test"))


def observation(
    seed: int = 0,
    *,
    shape: tuple[int, ...] = (6,),
    time: float = 0.0,
    level: str = "full",
    counters: dict[str, np.ndarray] | None = None,
    **changes,
) -> Observation:
    """Return an observation with everything that a level records; totals grow with time."""
    random = np.random.default_rng(seed)
    rates = {name: random.integers(1, 300, shape) for name in features.TOTALS}
    counted = {name: (rate * time).astype(np.int64) for name, rate in rates.items()}
    counted |= {name: random.integers(0, 9, shape) for name in GAUGES}
    counted = {name: values for name, values in counted.items() if level in RECORDED_FROM.get(name, (level,))}
    recorded = {"off": (), "basic": BASIC, "full": features.CHANNELS}[level]
    given: dict[str, Any] = {
        "time": time,
        "eligible": random.random(shape) < 0.8,
        "configured": np.ones(shape),
        "generation": np.zeros(shape, dtype=np.uint8),
        "counters": counted | (counters or {}),
        "channels": {name: random.exponential(1.0, (*shape, len(REDUCTIONS))) for name in recorded},
        "balancers": 2,
        "weights": random.exponential(1.0, shape),
        "base": None,
    }
    return Observation(**given | changes)


def permuted(seen, order):
    """Return the observation with its slots in another order."""
    return _indexed(seen, (..., order))


def row_of(seen, row):
    """Return one of stacked observations."""
    return _indexed(seen, row)


def _indexed(seen, at):
    reduced = (*at, slice(None)) if at[0] is ... else at
    return replace(
        seen,
        eligible=seen.eligible[at],
        configured=seen.configured[at],
        generation=seen.generation[at],
        counters={name: values[at] for name, values in seen.counters.items()},
        channels={name: values[reduced] for name, values in seen.channels.items()},
        weights=seen.weights[at],
        peers=None if seen.peers is None else seen.peers[at],
    )
