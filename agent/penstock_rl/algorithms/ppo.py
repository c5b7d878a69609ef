"""PPO: the on-policy control.

J. Schulman, F. Wolski, P. Dhariwal, A. Radford, O. Klimov, "Proximal Policy Optimization Algorithms",
arXiv:1707.06347, 2017.

Actor and actions are those of SAC-GRU; the value network reads the truth. Advantages (GAE) and updates are taken over
sequences, with the memory at their start and the value of the state behind them. Loss and advantages are TorchRL's.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torchrl.modules import ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from penstock_rl.algorithms import sequences
from penstock_rl.algorithms.base import Metrics, Part
from penstock_rl.algorithms.gaussian import GaussianLearner
from penstock_rl.algorithms.networks import Critic
from penstock_rl.recipes import Ppo, Recipe
from penstock_rl.training.episodes import Episode
from penstock_rl.training.layout import Layout


class PpoLearner(GaussianLearner):
    """Actor, value network, and no replay."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, layout)
        settings = recipe.algorithm
        if not isinstance(settings, Ppo):
            raise TypeError(f"algorithm: {settings.name!r} is not PPO")
        self.settings = settings
        self.shape = sequences.Shape(self.burn_in, settings.sequence, layout.slots)

        # 1. Value network; the actor is that of GaussianLearner.
        width, hidden = self.normaliser.width, recipe.network.hidden
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
    def burn_in(self) -> int:
        """None: sequences begin with the memory that they were collected with."""
        return 0

    def improve(self, episode: Episode, iteration: int) -> Metrics:
        """Take several passes over the sequences of the episode."""
        generator = self.seed(iteration)
        batch = self._batch(episode)
        metrics: Metrics = {}
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(batch), generator=generator)
            for rows in order.split(self.settings.batch_sequences):
                metrics = self._update(batch[rows].to(self.device))
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
        norm = self.descend(total, self.optimiser, self.settings.max_gradient)
        named = ("loss_objective", "loss_critic", "entropy", "kl_approx", "clip_fraction")
        return {**{f"losses/{name}": losses[name].item() for name in named}, "losses/gradient": norm}

    def parts(self) -> dict[str, Part]:
        """Networks, optimiser and moments of features."""
        return {"loss": self.loss, "optimiser": self.optimiser, "normaliser": self.normaliser}


LEARNER = PpoLearner
