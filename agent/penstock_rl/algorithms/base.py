"""What every learner is, and the actor that collects its episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from penstock_rl.algorithms.networks import Normaliser, SlotNetwork
from penstock_rl.recipes import Recipe
from penstock_rl.training.episodes import Episode, FloatArray, Step
from penstock_rl.training.layout import Layout

Metrics = dict[str, float]
Weights = Mapping[str, NDArray[Any]]
REPLAY = "replay"  # name of the part that only learning reads
SEED_STRIDE = 1_000_003  # a prime: seeds of neighbouring iterations and runs differ


@dataclass(frozen=True, slots=True)
class Decided:
    """What the first outputs of a network mean: limits x tanh(output), or the level with the largest output."""

    outputs: int
    limits: tuple[float, float] = (0.0, 0.0)  # of log weight and log base
    levels: tuple[tuple[float, float], ...] | None = None  # changes of log weight and log base


class Part(Protocol):
    """Something that training changes: a network, an optimiser, a replay buffer."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and containers of these."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Continue from a state."""
        ...


class Learner(ABC):
    """Networks, optimisers and replay of one algorithm.

    Everything random in `learn` follows from the recipe's seed and the iteration: a run that was stopped goes on as if
    it had not been, without the state of any generator.
    """

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        self.recipe = recipe
        self.layout = layout
        self.device = device_of(recipe)
        torch.set_num_threads(recipe.training.threads)
        torch.manual_seed(recipe.training.seed)
        self.normaliser = Normaliser(layout)
        self.scale = (1.0, 1.0)  # of the limits, once they are tuned

    @property
    @abstractmethod
    def network(self) -> SlotNetwork:
        """The network that decides."""

    @abstractmethod
    def decide(self, outputs: Tensor, *, explore: bool, eligible: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the network's outputs [..., S, outputs] into the action as it is stored, and the residual."""

    @abstractmethod
    def decided(self) -> Decided:
        """Return what the network's first outputs mean."""

    @abstractmethod
    def improve(self, episode: Episode, iteration: int) -> Metrics:
        """Take an iteration's updates with an episode that the current networks collected."""

    def learn(self, episode: Episode, iteration: int) -> Metrics:
        """Learn from an episode that the current networks collected.

        The moments of its features are taken in afterwards, because it was collected without them; those of the first
        one before, because its actions do not depend on features: the last layer is 0.
        """
        if iteration == 0:
            self.normaliser.update(episode.features, episode.mask)
        metrics = self.improve(episode, iteration)
        if iteration > 0:
            self.normaliser.update(episode.features, episode.mask)
        return metrics

    @abstractmethod
    def parts(self) -> dict[str, Part]:
        """Return all that `learn` changes, by its name in a checkpoint; `replay` is what only `learn` reads."""

    def state(self, *, replay: bool = True) -> dict[str, Any]:
        """Return the state of all parts. A finished training needs no `replay`."""
        kept = {name: part for name, part in self.parts().items() if replay or name != REPLAY}
        return {name: part.state_dict() for name, part in kept.items()} | {"scale": list(self.scale)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; replay that it does not have stays as it is."""
        self.scale = tuple(state["scale"])
        for name, part in self.parts().items():
            if name in state:
                part.load_state_dict(state[name])

    def descend(self, loss: Tensor, optimiser: torch.optim.Optimizer, most: float) -> float:
        """Take one step of the optimiser with gradients clipped to the norm `most`; return the norm before."""
        optimiser.zero_grad()
        loss.backward()
        parameters = [each for group in optimiser.param_groups for each in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, most)
        optimiser.step()
        return norm.item()

    def gains(self) -> tuple[float, float]:
        """Return the largest change of log weight and of log base."""
        limits = self.recipe.network
        return limits.weight_limit * self.scale[0], limits.base_limit * self.scale[1]

    def begin_iteration(self, iteration: int) -> None:  # noqa: B027 - most algorithms change nothing
        """Set what changes from iteration to iteration while episodes are collected."""

    @contextmanager
    def generators(self, seed: int) -> Iterator[None]:
        """Draw actions from generators of this seed, and leave the others as they are."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def actor(self) -> NetworkActor:
        """Return what collects episodes with the current networks, in this process or in another."""
        return NetworkActor(self)

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return what another process needs to act as this learner."""
        modules = {"network": self.network, "normaliser": self.normaliser}
        named = {f"{kind}.{name}": value for kind, module in modules.items() for name, value in tensors(module)}
        arrays = {name: value.detach().cpu().numpy().copy() for name, value in named.items()}
        return {**arrays, "scale": np.array(self.scale)}

    def load_weights(self, weights: Weights) -> None:
        """Act as the learner that returned these."""
        self.scale = float(weights["scale"][0]), float(weights["scale"][1])
        for kind, module in (("network", self.network), ("normaliser", self.normaliser)):
            with torch.no_grad():
                for name, value in tensors(module):
                    value.copy_(torch.from_numpy(weights[f"{kind}.{name}"]))

    def seed(self, iteration: int) -> torch.Generator:
        """Seed everything random of an iteration."""
        seed = self.recipe.training.seed * SEED_STRIDE + iteration
        torch.manual_seed(seed)
        return torch.Generator().manual_seed(seed)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of mixed precision: bfloat16 on a GPU, nothing elsewhere."""
        enabled = self.device.type == "cuda" and self.recipe.training.mixed_precision
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


class NetworkActor:
    """Decides for all environments and balancers of a step at once."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._state: Tensor | None = None

    def begin(self) -> None:
        """Drop the memory."""
        self._state = None

    @torch.no_grad()
    def act(self, step: Step, *, explore: bool) -> tuple[FloatArray, FloatArray]:
        """Return the action [E, L, S, A] and the residual [E, L, S, 2]."""
        device = self._learner.device
        eligible = torch.from_numpy(step.mask).to(device)
        inputs = self._learner.normaliser(torch.from_numpy(step.features)).to(device).unsqueeze(1)
        network = self._learner.network
        state = network.first_state(inputs) if self._state is None else self._state
        renewed = torch.from_numpy(step.renewed).to(device).unsqueeze(1)
        outputs, self._state = network(inputs, eligible.unsqueeze(1), renewed, state)
        action, residual = self._learner.decide(outputs[:, 0], explore=explore, eligible=eligible)
        return action.cpu().numpy(), torch.where(eligible.unsqueeze(-1), residual, 0.0).cpu().numpy()


def tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and persistent buffers by name."""
    return list(module.state_dict(keep_vars=True).items())


def device_of(recipe: Recipe) -> torch.device:
    """Return where networks are trained."""
    wanted = recipe.training.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
