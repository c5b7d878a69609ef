"""PPO: the on-policy control.

J. Schulman, F. Wolski, P. Dhariwal, A. Radford, O. Klimov, "Proximal Policy Optimization Algorithms",
arXiv:1707.06347, 2017.

Actor and actions are those of SAC-GRU; the value network reads the truth. Advantages (GAE) and updates are taken over
sequences, with the memory at their start and the value of the state behind them. Loss and advantages are TorchRL's.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from penstock_rl.algorithms import sequences
from penstock_rl.algorithms.base import Decided, Learner, Metrics
from penstock_rl.algorithms.networks import Critic, GaussianHead, SlotActions, SlotNetwork
from penstock_rl.recipes import Ppo, Recipe
from penstock_rl.training.episodes import Episode
from penstock_rl.training.layout import Layout

EDGE = 1.0 - 1e-6  # actions at the very end of (-1, 1) have no finite log-probability


class PpoLearner(Learner):
    """Actor, value network, and no replay."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, layout)
        settings = recipe.algorithm
        if not isinstance(settings, Ppo):
            raise TypeError(f"algorithm: {settings.name!r} is not PPO")
        self.settings = settings
        self.shape = sequences.Shape(0, settings.sequence, layout.slots)

        # 1. Networks.
        width, hidden = self.normaliser.width, recipe.network.hidden
        self.values = 2 if recipe.network.base_limit > 0 else 1
        self._network = SlotNetwork(width, hidden, 2 * self.values, memory=recipe.network.memory).to(self.device)
        self.actor_module = ProbabilisticActor(
            TensorDictModule(
                GaussianHead(self._network),
                in_keys=["inputs", "eligible", "renewed", "state"],
                out_keys=["loc", "scale"],
            ),
            in_keys={"loc": "loc", "scale": "scale", "eligible": "eligible"},
            distribution_class=SlotActions,
            return_log_prob=True,
        )
        critic = Critic(width + 2 + len(layout.truth), hidden).to(self.device)
        value = ValueOperator(critic, in_keys=["eligible", "inputs", "anchor", "truth"], out_keys=["state_value"])

        # 2. Advantages and loss.
        self.advantages = GAE(
            gamma=settings.gamma, lmbda=settings.gae_lambda, value_network=value, deactivate_vmap=True
        )
        self.loss = ClipPPOLoss(
            self.actor_module,
            value,
            clip_epsilon=settings.clip,
            entropy_coeff=settings.entropy,
            normalize_advantage=True,
        ).to(self.device)
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=settings.learning_rate)

    @property
    def network(self) -> SlotNetwork:
        """The actor's network."""
        return self._network

    def decide(self, outputs: Tensor, *, explore: bool, eligible: Tensor) -> tuple[Tensor, Tensor]:
        """Sample, or take the middle of the distribution."""
        location, scale = GaussianHead(self._network).split(outputs)
        distribution = SlotActions(location, scale, eligible)
        action = distribution.sample() if explore else distribution.deterministic_sample
        action = action.clamp(-EDGE, EDGE)
        residual = nn.functional.pad(action * action.new_tensor(self.gains()[: self.values]), (0, 2 - self.values))
        return action, residual

    def decided(self) -> Decided:
        """Locations come first."""
        return Decided(self.values, limits=self.gains())

    def learn(self, episode: Episode, iteration: int) -> Metrics:
        """Take several passes over the sequences of the episode."""
        generator = self.seed(iteration)
        batch = self._batch(episode)
        metrics: Metrics = {}
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(batch), generator=generator)
            for rows in order.split(self.settings.batch_sequences):
                metrics = self._update(batch[rows].to(self.device))
        self.normaliser.update(episode.features, episode.mask)
        return metrics

    @torch.no_grad()
    def _batch(self, episode: Episode) -> TensorDict:
        """Return sequences [n, length] with advantages and the log-probabilities of what was done."""
        pieces = sequences.cut(episode, self.shape, self.normaliser, self._network, together=False)
        batch = sequences.transitions(sequences.refresh(pieces, self.shape, self.normaliser, self._network))
        self.advantages(batch)
        batch[self.loss.tensor_keys.sample_log_prob] = self.actor_module.get_dist(batch).log_prob(batch["action"])
        return batch

    def _update(self, batch: TensorDict) -> Metrics:
        with self.autocast():
            losses = self.loss(batch)
            total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
        self.optimiser.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.loss.parameters(), self.settings.max_gradient)
        self.optimiser.step()
        named = ("loss_objective", "loss_critic", "entropy", "kl_approx", "clip_fraction")
        return {**{f"losses/{name}": losses[name].item() for name in named}, "losses/gradient": norm.item()}

    def state(self) -> dict[str, Any]:
        """Return networks, optimiser and moments of features."""
        return {
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "normaliser": self.normaliser.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.normaliser.load_state_dict(state["normaliser"])


LEARNER = PpoLearner
