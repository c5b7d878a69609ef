"""Prioritised replay of sequences: TorchRL's buffer, and its contents as a checkpoint stores them."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import PrioritizedSampler

from penstock_rl.recipes import OffPolicy

MOST = 0.9  # share of the largest error in a sequence's priority; the rest is the mean (Kapturowski et al., 2019)


class Replay:
    """Sequences with priorities. Sampling follows from the generator that `begin` gets."""

    def __init__(self, settings: OffPolicy) -> None:
        self._settings = settings
        self._sampler = PrioritizedSampler(
            settings.buffer_sequences, settings.priority_exponent, settings.importance_exponent
        )
        self._buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(settings.buffer_sequences),
            sampler=self._sampler,
            batch_size=settings.batch_sequences,
        )

    def __len__(self) -> int:
        return len(self._buffer)

    def begin(self, generator: torch.Generator) -> None:
        """Draw from this generator from now on."""
        self._buffer.set_rng(generator)

    def add(self, sequences: TensorDict) -> None:
        """Add sequences, each with the highest priority so far; the oldest ones make room."""
        self._buffer.extend(sequences)

    def sample(self) -> TensorDictBase:
        """Draw sequences; `index` and `priority_weight` are among their entries."""
        return self._buffer.sample()

    def update(self, index: Tensor, errors: Tensor) -> None:
        """Set priorities by the errors [B, T] of all steps."""
        mixed = MOST * errors.amax(1) + (1 - MOST) * errors.mean(1)
        self._buffer.update_priority(index.reshape(len(mixed), -1)[:, 0].cpu(), mixed.detach().float().cpu())

    def state(self) -> dict[str, Any]:
        """Return contents, priorities and position; leaves stand for the sampler's trees, which are C++ objects."""
        state: dict[str, Any] = dict(self._buffer.state_dict())
        sampler = dict(state["_sampler"])
        leaves = sampler["_sum_tree"][torch.arange(self._settings.buffer_sequences)]
        del sampler["_min_tree"]  # has the same leaves
        return {**state, "_sampler": {**sampler, "_sum_tree": torch.as_tensor(leaves)}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        leaves = state["_sampler"]["_sum_tree"]
        written = leaves.nonzero().squeeze(-1)
        trees = {name: self._sampler.state_dict()[name] for name in ("_sum_tree", "_min_tree")}
        if len(written):
            for tree in trees.values():
                tree[written] = leaves[written]
        self._buffer.load_state_dict({**state, "_sampler": {**state["_sampler"], **trees}})
