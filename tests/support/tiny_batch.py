"""A batch of environments that takes no simulator: the best residual of a slot is written in one of its features.

Reward is the negative squared distance of log weights from `BEST` x the feature `fct/hint`. A slot's speed is
exp(hint), so that the least marginal delay wants the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from penstock_rl.training.curriculum import Draw
from penstock_rl.training.layout import Layout, of_groups

FEATURES = ("counts/open", "fct/hint", "fct/noise", "flow_duration/noise", "turns/noise")
TRUTH = ("cores", "speed", "active", "capacity_share")
BALANCERS, SLOTS, STEPS = 2, 5, 12
BEST = 0.5


@dataclass(frozen=True)
class TinyStep:
    """See `penstock_rl.envs.batch.Step`."""

    features: np.ndarray
    mask: np.ndarray
    renewed: np.ndarray
    anchor: np.ndarray
    count: np.ndarray
    truth: np.ndarray
    reward: np.ndarray
    present: np.ndarray
    done: bool


class TinyBatch:
    """Environments without dynamics: a slot's hint is that of the episode, and the rest is drawn in every step."""

    def __init__(self, seeds: list[int], features: tuple[str, ...]) -> None:
        self._columns = [FEATURES.index(name) for name in features]
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self.shape = (len(seeds), BALANCERS, SLOTS)
        self._slots = np.array([2 + seed % (SLOTS - 1) for seed in seeds])
        self._hint = self._drawn(1)[..., 0]
        self._loss = np.zeros(len(seeds))
        self._at = 0

    def reset(self) -> TinyStep:
        return self._observe(np.zeros(self.shape[:2], dtype=np.float32))

    def step(self, residual: np.ndarray) -> TinyStep:
        error = np.where(self._mask, residual[..., 0] - BEST * self._hint, 0.0)
        loss = np.square(error).sum(-1) / self._mask.sum(-1)
        self._loss += loss.mean(1)
        self._at += 1
        return self._observe(-loss.astype(np.float32))

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        completed = np.full(len(self._generators), 100.0)
        return completed, completed * (0.1 + self._loss / max(self._at, 1))

    def _drawn(self, columns: int) -> np.ndarray:
        shape = (BALANCERS, SLOTS, columns)
        return np.stack([each.uniform(-1, 1, shape) for each in self._generators]).astype(np.float32)

    def _observe(self, reward: np.ndarray) -> TinyStep:
        self._mask = np.broadcast_to((np.arange(SLOTS) < self._slots[:, None])[:, None], self.shape)
        parts = (np.ones((*self.shape, 1)), self._hint[..., None], self._drawn(3))
        features = np.concatenate(parts, -1).astype(np.float32)
        speed = np.exp(self._hint)
        ones = np.ones(self.shape, dtype=np.float32)
        truth = np.stack([ones, speed, ones, speed / speed.sum(-1, keepdims=True)], -1).astype(np.float32)
        return TinyStep(
            features=features[..., self._columns],
            mask=self._mask,
            renewed=np.full(self.shape, self._at == 0),
            anchor=np.zeros((*self.shape, 2), dtype=np.float32),
            count=ones,
            truth=truth,
            reward=reward,
            present=np.ones(self.shape[:2], dtype=np.bool_),
            done=self._at == STEPS,
        )


@dataclass(frozen=True)
class TinySource:
    """Makes tiny batches with the features of some groups; none: all."""

    groups: tuple[str, ...] = ()

    def layout(self, draw: Draw) -> Layout:
        return Layout(of_groups(FEATURES, self.groups), TRUTH, BALANCERS, SLOTS)

    def open(self, draw: Draw, *, paired: bool) -> TinyBatch:
        seeds = [int(each["seed"]) for each in draw.environments]
        return TinyBatch(seeds * 2 if paired else seeds, of_groups(FEATURES, self.groups))
