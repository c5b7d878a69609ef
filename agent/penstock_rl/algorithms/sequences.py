"""Sequences: pieces of episodes with the memory at their start, as recurrent replay stores them.

S. Kapturowski, G. Ostrovski, J. Quan, R. Munos, W. Dabney, "Recurrent Experience Replay in Distributed Reinforcement
Learning", ICLR 2019: the stored state is refreshed by `burn_in` steps before a sequence is learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from penstock_rl.algorithms.networks import Normaliser, SlotNetwork, scale_truth
from penstock_rl.training.episodes import Episode

OBSERVED = {"features": "features", "mask": "eligible", "renewed": "renewed", "anchor": "anchor", "truth": "truth"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a stored sequence."""

    burn_in: int
    length: int  # steps that are learned from
    slots: int

    @property
    def window(self) -> int:
        """Observations of a sequence: the last one only bootstraps."""
        return self.burn_in + self.length + 1


@torch.no_grad()
def cut(episode: Episode, shape: Shape, normaliser: Normaliser, network: SlotNetwork, *, together: bool) -> TensorDict:
    """Cut an episode into sequences [n] with entries [window, ...].

    Balancers are separate agents, each with sequences of its own, unless they stay `together`.
    """
    whole = _tensors(episode, shape.slots)
    if not together:
        whole = _by_balancer(whole, torch.from_numpy(episode.present[0]))
    starts = range(0, episode.steps + 1 - shape.window + 1, shape.length)
    if not starts:
        raise ValueError(
            f"an episode of {episode.steps} steps is shorter than a sequence of {shape.window - 1}; "
            "lower algorithm.sequence or algorithm.burnIn, or use longer scenarios"
        )
    device = next(network.parameters()).device
    states = _states(whole, starts, normaliser, network, device)
    pieces = []
    for start, state in zip(starts, states, strict=True):
        piece = {name: value[:, start : start + shape.window] for name, value in whole.items()}
        features = piece["features"].half()  # within +-20, to three digits: half of what is stored
        pieces.append(TensorDict({**piece, "features": features, "state": state.cpu()}, [len(state)]))
    return torch.cat(pieces).contiguous()


def _tensors(episode: Episode, slots: int) -> dict[str, Tensor]:
    """Return the episode's arrays as [E, T+1, L, slots, ...]; the last action and reward are 0."""
    arrays = {name: torch.from_numpy(getattr(episode, field)) for field, name in OBSERVED.items()}
    arrays["count"] = torch.from_numpy(episode.count)
    arrays["action"] = _one_more(torch.from_numpy(episode.action))
    order = _used_first(arrays["eligible"], slots)
    chosen = {name: _choose_slots(value, order, slots) for name, value in arrays.items()}
    chosen["reward"] = _one_more(torch.from_numpy(episode.reward)).unsqueeze(-1)
    return {name: value.movedim(0, 1) for name, value in chosen.items()}


def _one_more(values: Tensor) -> Tensor:
    return torch.cat([values, torch.zeros_like(values[:1])])


def _used_first(eligible: Tensor, slots: int) -> Tensor:
    """Return the order of slots [E, L, slots] in which those that a backend ever used come first."""
    used = eligible.any(0)
    if (most := int(used.sum(-1).max())) > slots:
        raise ValueError(
            f"an environment has {most} backends, one after another; raise scenarios.maxBackends to as many"
        )
    return torch.argsort(used.int(), dim=-1, descending=True, stable=True)[..., :slots]


def _choose_slots(values: Tensor, order: Tensor, slots: int) -> Tensor:
    """Take slots [T, E, L, S, ...] in this order, and append empty ones up to `slots`."""
    index = order.unsqueeze(0).reshape(1, *order.shape, *[1] * (values.ndim - 4))
    taken = torch.take_along_dim(values, index, 3)
    missing = slots - taken.shape[3]
    return torch.cat([taken, taken.new_zeros((*taken.shape[:3], missing, *taken.shape[4:]))], 3)


def _by_balancer(whole: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
    """Return [agents, T+1, ...] of the balancers that exist."""
    return {name: value.movedim(2, 1)[present] for name, value in whole.items()}


def _states(
    whole: dict[str, Tensor], starts: range, normaliser: Normaliser, network: SlotNetwork, device: torch.device
) -> list[Tensor]:
    """Return the memory before each start, of the current network along the whole episode."""
    inputs = normaliser(whole["features"])
    state = network.first_state(inputs).to(device)
    states = []
    for start in starts:
        states.append(state)
        part = slice(start, start + starts.step)
        pieces = (inputs[:, part], whole["eligible"][:, part], whole["renewed"][:, part])
        values, eligible, renewed = (piece.to(device) for piece in pieces)
        state = network.next_state(values, eligible, renewed, state)
    return states


@torch.no_grad()
def refresh(sample: TensorDictBase, shape: Shape, normaliser: Normaliser, network: SlotNetwork) -> TensorDict:
    """Normalise a sample of sequences, run the burn-in, and return the rest as observations [B, length + 1].

    The entry `state` holds the memory before the first of these, and `next_state` that before the second.
    """
    device = next(network.parameters()).device
    inputs = normaliser(sample["features"].float()).to(device)
    sample = sample.exclude("features").to(device)
    eligible, renewed, state = sample["eligible"], sample["renewed"], sample["state"]
    if shape.burn_in:
        before = slice(0, shape.burn_in)
        state = network.next_state(inputs[:, before], eligible[:, before], renewed[:, before], state)
    first = slice(shape.burn_in, shape.burn_in + 1)
    following = network.next_state(inputs[:, first], eligible[:, first], renewed[:, first], state)
    rest = slice(shape.burn_in, None)
    kept = {name: sample[name][:, rest] for name in ("renewed", "count", "anchor", "action", "reward")}
    observed = {
        "inputs": inputs[:, rest],
        "eligible": eligible[:, rest],
        "truth": scale_truth(sample["truth"][:, rest]),
    }
    batch = [len(sample), shape.length + 1]
    return TensorDict(
        {**observed, **kept, "state": _at_each(state, batch), "next_state": _at_each(following, batch)}, batch
    )


def _at_each(state: Tensor, batch: list[int]) -> Tensor:
    """Repeat a state along time as a view: entries of a tensordict share its batch shape, only the first is read."""
    return state.unsqueeze(1).expand(*batch, *state.shape[1:])


def transitions(observed: TensorDict) -> TensorDict:
    """Pair each observation with the next: [B, length], as losses of TorchRL read them. Episodes never terminate."""
    now, then = observed[:, :-1], observed[:, 1:]
    names = ("inputs", "eligible", "renewed", "anchor", "truth", "count")
    following = then.select(*names)
    following["state"] = now["next_state"]
    following["reward"] = now["reward"]
    never = torch.zeros_like(now["reward"], dtype=torch.bool)
    following["done"], following["terminated"] = never, never.clone()
    paired = now.select(*names, "state", "action")
    paired["done"], paired["terminated"] = never.clone(), never.clone()
    paired["next"] = following
    return paired
