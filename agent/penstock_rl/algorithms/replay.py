"""Replay of sequences, uniform or prioritised: TorchRL's buffer, and its contents as a checkpoint stores them."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import PrioritizedSampler, RandomSampler, Sampler

from penstock_rl.recipes import Imitation, OffPolicy

MOST = 0.9  # share of the largest error in a sequence's priority; the rest is the mean (Kapturowski et al., 2019)
OF_THE_BUFFER = ("index",)  # entries that the buffer adds itself


class Replay:
    """Sequences, sampled uniformly. Sampling follows from the generator that `begin` gets."""

    def __init__(self, settings: OffPolicy | Imitation, sampler: Sampler | None = None) -> None:
        self._buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(settings.buffer_sequences),
            sampler=sampler or RandomSampler(),
            batch_size=settings.batch_sequences,
        )

    def __len__(self) -> int:
        return len(self._buffer)

    def begin(self, generator: torch.Generator) -> None:
        """Draw from this generator from now on."""
        self._buffer.set_rng(generator)

    def add(self, sequences: TensorDict) -> None:
        """Add sequences; the oldest ones make room."""
        self._buffer.extend(sequences)

    def sample(self) -> TensorDictBase:
        """Draw sequences."""
        return self._buffer.sample()

    def state_dict(self) -> dict[str, Any]:
        """Return contents and position, without the room that nothing was written to."""
        stored = dict(self._buffer[:].items()) if len(self) else {}
        contents = {name: value for name, value in stored.items() if name not in OF_THE_BUFFER}
        return {"contents": contents, "writer": self._buffer.writer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; the buffer is empty."""
        if contents := state["contents"]:
            self._buffer.extend(TensorDict(contents, [len(next(iter(contents.values())))]))
        self._buffer.writer.load_state_dict(state["writer"])


class PrioritisedReplay(Replay):
    """Sequences with priorities; new ones have the highest so far."""

    def __init__(self, settings: OffPolicy) -> None:
        exponents = settings.priority_exponent, settings.importance_exponent
        self._sampler = PrioritizedSampler(settings.buffer_sequences, *exponents)
        super().__init__(settings, self._sampler)

    def update(self, index: Tensor, errors: Tensor) -> None:
        """Set priorities by the errors [B, T] of all steps."""
        mixed = MOST * errors.amax(1) + (1 - MOST) * errors.mean(1)
        self._buffer.update_priority(index.reshape(len(mixed), -1)[:, 0].cpu(), mixed.detach().float().cpu())

    def state_dict(self) -> dict[str, Any]:
        """Add priorities; leaves stand for the sampler's trees, which are C++ objects."""
        sampler = dict(self._sampler.state_dict())
        del sampler["_min_tree"]  # has the same leaves
        leaves = torch.as_tensor(sampler["_sum_tree"][torch.arange(len(self))])
        return {**super().state_dict(), "sampler": {**sampler, "_sum_tree": leaves}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; the buffer is empty."""
        super().load_state_dict(state)
        leaves = state["sampler"]["_sum_tree"]
        trees = {name: self._sampler.state_dict()[name] for name in ("_sum_tree", "_min_tree")}
        if len(leaves):
            for tree in trees.values():
                tree[torch.arange(len(leaves))] = leaves
        self._sampler.load_state_dict({**state["sampler"], **trees})
