"""Episodes: what environments and a policy did together, as arrays [steps, environments, balancers, slots, ...]."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class Step(Protocol):
    """What a batch of environments returns; see `penstock_rl.envs.batch.Step` for the fields."""

    @property
    def features(self) -> FloatArray: ...  # noqa: D102
    @property
    def mask(self) -> BoolArray: ...  # noqa: D102
    @property
    def renewed(self) -> BoolArray: ...  # noqa: D102
    @property
    def anchor(self) -> FloatArray: ...  # noqa: D102
    @property
    def count(self) -> FloatArray: ...  # noqa: D102
    @property
    def truth(self) -> FloatArray: ...  # noqa: D102
    @property
    def reward(self) -> FloatArray: ...  # noqa: D102
    @property
    def present(self) -> BoolArray: ...  # noqa: D102
    @property
    def done(self) -> bool: ...  # noqa: D102


class Batch(Protocol):
    """Environments that step together: `penstock_rl.envs.batch.Batch`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Environments, balancers, slots."""
        ...

    def reset(self) -> Step:
        """Begin the episode."""
        ...

    def step(self, residual: FloatArray) -> Step:
        """Take one decision of each balancer."""
        ...

    def totals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return completed requests and the sum of their seconds, by environment."""
        ...


class Actor(Protocol):
    """A policy in training."""

    def begin(self) -> None:
        """Drop the memory: a new episode begins."""
        ...

    def act(self, step: Step, *, explore: bool) -> tuple[FloatArray, FloatArray]:
        """Return the action as the algorithm stores it, and the residual as the environment takes it."""
        ...


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode of E environments; entry t of the observations is what action t was decided on."""

    features: FloatArray  # [T+1, E, L, S, F]
    mask: BoolArray  # [T+1, E, L, S]
    renewed: BoolArray  # [T+1, E, L, S]
    anchor: FloatArray  # [T+1, E, L, S, 2]
    count: FloatArray  # [T+1, E, L, S]
    truth: FloatArray  # [T+1, E, L, S, K]
    present: BoolArray  # [T+1, E, L]
    action: FloatArray  # [T, E, L, S, A]
    reward: FloatArray  # [T, E, L]

    @property
    def steps(self) -> int:
        """Decisions of each balancer."""
        return len(self.reward)


@dataclass(frozen=True, slots=True)
class Totals:
    """What came of an episode, by environment: mean completion times of the policy and of the anchor."""

    policy: NDArray[np.float64]
    anchor: NDArray[np.float64]  # on the same arrivals; empty where episodes are not paired


_OBSERVED = ("features", "mask", "renewed", "anchor", "count", "truth", "present")


def roll_out(
    batch: Batch,
    actor: Actor,
    *,
    explore: bool,
    paired: bool,
    missing: BoolArray | None = None,
) -> tuple[Episode, Totals]:
    """Run an episode.

    Where it is `paired`, the second half of the environments repeats the first, takes the anchor's decisions, and
    is subtracted from the rewards: what arrivals did to both is no merit of the policy. `missing`
    [E, F] are the features that an environment does not have in this episode.
    """
    half = batch.shape[0] // 2 if paired else batch.shape[0]
    seen: dict[str, list[NDArray[Any]]] = {name: [] for name in _OBSERVED}
    actions, rewards = [], []
    actor.begin()
    step = _first(batch.reset(), half, missing, seen)
    done = False
    while not done:
        action, residual = actor.act(step, explore=explore)
        following = batch.step(_with_anchor(residual) if paired else residual)
        actions.append(action)
        rewards.append(following.reward[:half] - following.reward[half:] if paired else following.reward)
        done = following.done
        step = _first(following, half, missing, seen)
    arrays = {name: np.stack(values) for name, values in seen.items()}
    return Episode(**arrays, action=np.stack(actions), reward=np.stack(rewards)), _totals(batch, half)


@dataclass(frozen=True, slots=True)
class _Half:
    features: FloatArray
    mask: BoolArray
    renewed: BoolArray
    anchor: FloatArray
    count: FloatArray
    truth: FloatArray
    present: BoolArray
    reward: FloatArray
    done: bool


def _first(
    step: Step,
    half: int,
    missing: BoolArray | None,
    seen: dict[str, list[NDArray[Any]]],
) -> _Half:
    """Copy the environments that learn, without features that are missing; record them."""
    arrays = {name: np.array(getattr(step, name)[:half]) for name in _OBSERVED}
    if missing is not None:
        np.copyto(arrays["features"], np.nan, where=missing[:, None, None, :])
    for name, values in seen.items():
        values.append(arrays[name])
    return _Half(**arrays, reward=step.reward[:half], done=step.done)


def _with_anchor(residual: FloatArray) -> FloatArray:
    return np.concatenate([residual, np.zeros_like(residual)])


def _totals(batch: Batch, half: int) -> Totals:
    completed, seconds = batch.totals()
    mean = np.where(completed > 0, seconds / np.maximum(completed, 1), np.inf)
    return Totals(mean[:half], mean[half:])


def join(episodes: list[Episode]) -> Episode:
    """Put episodes of the same length beside each other, padded to the largest number of balancers and slots."""
    steps = min(each.steps for each in episodes)
    joined = {}
    for field in fields(Episode):
        arrays = [getattr(each, field.name) for each in episodes]
        length = steps if field.name in ("action", "reward") else steps + 1
        joined[field.name] = np.concatenate(_padded([array[:length] for array in arrays]), axis=1)
    return Episode(**joined)


def _padded(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Pad axes 2 and 3 (balancers, slots) with zeros to the largest; what is padded is neither present nor eligible."""
    widths = [max(array.shape[axis] for array in arrays) for axis in range(2, min(arrays[0].ndim, 4))]
    return [_pad(array, widths) for array in arrays]


def _pad(array: NDArray[Any], widths: list[int]) -> NDArray[Any]:
    wanted = [(0, 0), (0, 0), *((0, width - have) for width, have in zip(widths, array.shape[2:], strict=False))]
    return np.pad(array, wanted + [(0, 0)] * (array.ndim - len(wanted)))
