"""SAC-GRU: soft actor-critic with a recurrent actor.

T. Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905, 2018; Z. Yao, Z. Ding, T.
Clausen, "Multi-Agent Reinforcement Learning for Network Load Balancing in Data Center", CIKM 2022.

Each balancer is an agent of its own with shared networks. It decides log weight and log base of each backend, relative
to the anchor (a heuristic): action a in (-1, 1), residual = limit x a. The critics read the simulator's truth, but have
no memory; they are not needed once training is over. Returns are lambda-returns over the replayed sequence.

Loss, twin critics and target networks are TorchRL's.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torchrl.modules import ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate, ValueEstimators

from penstock_rl.algorithms import sequences
from penstock_rl.algorithms.base import REPLAY, Metrics, Part
from penstock_rl.algorithms.gaussian import GaussianLearner
from penstock_rl.algorithms.networks import Critic
from penstock_rl.algorithms.replay import PrioritisedReplay
from penstock_rl.recipes import Recipe, RlbSac, SacGru
from penstock_rl.training.episodes import Episode
from penstock_rl.training.layout import Layout


class SacLearner(GaussianLearner):
    """Actor, twin critics, temperature and prioritised replay."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, layout)
        settings = recipe.algorithm
        if not isinstance(settings, SacGru | RlbSac):
            raise TypeError(f"algorithm: {settings.name!r} is not SAC")
        self.settings = settings
        self.shape = sequences.Shape(self.burn_in, settings.sequence, layout.slots)

        # 1. Critics; the actor is that of GaussianLearner.
        width, hidden = self.normaliser.width, recipe.network.hidden
        parts = ["inputs", "anchor", "action", *(["truth"] if self.privileged else [])]
        critic_width = width + 2 + self.values + (len(layout.truth) if self.privileged else 0)
        critic = ValueOperator(
            Critic(critic_width, hidden).to(self.device), in_keys=["eligible", *parts], out_keys=["state_action_value"]
        )

        # 2. Loss: double Q, target networks, automatic temperature, lambda-returns.
        self.loss = SACLoss(
            self.actor_module,
            critic,
            num_qvalue_nets=2,
            alpha_init=settings.initial_temperature,
            target_entropy=settings.target_entropy,
        ).to(self.device)
        self.loss.make_value_estimator(ValueEstimators.TDLambda, gamma=settings.gamma, lmbda=settings.trace)
        self.targets = SoftUpdate(self.loss, tau=settings.target_rate)

        # 3. Optimiser and replay.
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=settings.learning_rate)
        self.replay = PrioritisedReplay(settings)

    @property
    def burn_in(self) -> int:
        """Steps that refresh the memory; none where there is no memory."""
        return self.settings.burn_in if self.memory else 0

    @property
    def privileged(self) -> bool:
        """Whether the critics read the truth."""
        return isinstance(self.settings, SacGru) and self.settings.privileged_critic

    def improve(self, episode: Episode, iteration: int) -> Metrics:
        """Store the episode, then take the iteration's updates."""
        self.replay.begin(self.seed(iteration))
        pieces = sequences.cut(episode, self.shape, self.normaliser, self._network, together=False)
        self.replay.add(pieces)
        metrics: Metrics = {}
        for _ in range(self.settings.updates):
            metrics = self._update()
        return {**metrics, "replay/sequences": float(len(self.replay))}

    def _update(self) -> Metrics:
        sample = self.replay.sample()
        batch = self._transitions(sample)
        with self.autocast():
            losses = self.loss(batch)
            total = losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]
        norm = self.descend(total, self.optimiser, self.settings.max_gradient)
        self.targets.step()
        self.replay.update(sample["index"], batch["td_error"])
        named = ("loss_actor", "loss_qvalue", "alpha", "entropy")
        return {**{f"losses/{name}": losses[name].item() for name in named}, "losses/gradient": norm}

    def _transitions(self, sample: Any) -> TensorDict:
        observed = sequences.refresh(sample, self.shape, self.normaliser, self._network)
        batch = sequences.transitions(observed)
        importance = sample["priority_weight"].reshape(len(sample), -1)[:, :1]
        batch["priority_weight"] = importance.to(self.device).expand(batch.shape)
        return batch

    def parts(self) -> dict[str, Part]:
        """Networks with targets, optimiser, moments of features, replay."""
        return {
            "loss": self.loss,
            "targets": self.targets,
            "optimiser": self.optimiser,
            "normaliser": self.normaliser,
            REPLAY: self.replay,
        }


LEARNER = SacLearner
