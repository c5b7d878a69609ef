"""What SAC-GRU, RLB-SAC and PPO have in common: a recurrent actor that draws its action from a squashed Gaussian.

It decides log weight and log base of each backend, relative to the anchor: action a in (-1, 1), residual = limit x a.
"""

from __future__ import annotations

from abc import abstractmethod

from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor

from penstock_rl.algorithms.base import Decided, Learner
from penstock_rl.algorithms.networks import GaussianHead, SlotActions, SlotNetwork
from penstock_rl.recipes import Recipe
from penstock_rl.training.layout import Layout

INPUTS = ["inputs", "eligible", "renewed", "state"]
EDGE = 1.0 - 1e-6  # actions at the very end of (-1, 1) have no finite log-probability


class GaussianLearner(Learner):
    """A network with location and scale of `values` numbers for each backend, and what is drawn from them."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, layout)
        network = SlotNetwork(self.normaliser.width, recipe.network.hidden, 2 * self.values, memory=self.memory)
        self._network = network.to(self.device)
        self._head = GaussianHead(self._network)
        self.actor_module = ProbabilisticActor(
            TensorDictModule(self._head, in_keys=INPUTS, out_keys=["loc", "scale"]),
            in_keys={"loc": "loc", "scale": "scale", "eligible": "eligible"},
            distribution_class=SlotActions,
            return_log_prob=True,
        )

    @property
    @abstractmethod
    def burn_in(self) -> int:
        """Steps that refresh the memory before a sequence."""

    @property
    def memory(self) -> bool:
        """Whether the actor has a memory."""
        return self.recipe.network.memory

    @property
    def values(self) -> int:
        """Numbers that are decided for each backend: log weight, and log base unless its limit is 0."""
        return 2 if self.gains()[1] > 0 else 1

    @property
    def network(self) -> SlotNetwork:
        """The actor's network."""
        return self._network

    def decide(self, outputs: Tensor, *, explore: bool, eligible: Tensor) -> tuple[Tensor, Tensor]:
        """Sample, or take the middle of the distribution."""
        location, scale = self._head.split(outputs)
        distribution = SlotActions(location, scale, eligible)
        action = (distribution.sample() if explore else distribution.deterministic_sample).clamp(-EDGE, EDGE)
        return action, self.residual(action)

    def decided(self) -> Decided:
        """Locations come first."""
        return Decided(self.values, limits=self.gains())

    def residual(self, action: Tensor) -> Tensor:
        """Scale an action to changes of log weight and log base."""
        scaled = action * action.new_tensor(self.gains()[: self.values])
        return nn.functional.pad(scaled, (0, 2 - self.values))
