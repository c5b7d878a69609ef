"""QMIX: one agent for each balancer, a monotonic mixer in training, decentralised in use.

T. Rashid et al., "QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement Learning", ICML 2018;
Z. Yao, Z. Ding, T. Clausen, "Multi-Agent Reinforcement Learning for Network Load Balancing in Data Center", CIKM 2022,
which chooses weights from 1, 1.2, ... 2.

An agent chooses one level for each backend. Its value is the mean over backends of the values of the chosen levels
(A. Tavakoli, F. Pardo, P. Kormushev, "Action Branching Architectures for Deep Reinforcement Learning", AAAI 2018), so
that it fits any number of backends. The mixer's hypernetworks read the truth, pooled over balancers and backends.

Loss, mixer and target networks are TorchRL's.
"""

from __future__ import annotations

import math

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.modules import QMixer, QValueModule
from torchrl.objectives import QMixerLoss, SoftUpdate, ValueEstimators

from penstock_rl.algorithms import sequences
from penstock_rl.algorithms.base import REPLAY, Decided, Learner, Metrics, Part
from penstock_rl.algorithms.networks import SlotNetwork, mlp, pool
from penstock_rl.algorithms.replay import PrioritisedReplay
from penstock_rl.recipes import Qmix, Recipe
from penstock_rl.training.episodes import Episode
from penstock_rl.training.layout import Layout

LEVEL_VALUES, CHOSEN = ("agents", "action_value"), ("agents", "chosen_action_value")
EXPLORING = 0.5  # share of the iterations over which exploration falls


class QmixLearner(Learner):
    """Agents with shared networks, mixer and prioritised replay."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, layout)
        settings = recipe.algorithm
        if not isinstance(settings, Qmix):
            raise TypeError(f"algorithm: {settings.name!r} is not QMIX")
        self.settings = settings
        self.exploration = settings.exploration
        self.together = settings.mixing == "monotonic"
        self.levels = torch.tensor([math.log(level) for level in settings.levels], device=self.device)
        self.shape = sequences.Shape(settings.burn_in if recipe.network.memory else 0, settings.sequence, layout.slots)

        # 1. Agents: a value for each level of each backend, and the best level.
        width, hidden = self.normaliser.width, recipe.network.hidden
        self._network = SlotNetwork(width, hidden, len(settings.levels), memory=recipe.network.memory).to(self.device)
        values = TensorDictModule(
            LevelValues(self._network), in_keys=["inputs", "eligible", "renewed", "state"], out_keys=[LEVEL_VALUES]
        )
        best = QValueModule(
            action_space="one-hot", action_value_key=LEVEL_VALUES, out_keys=[("agents", "action"), LEVEL_VALUES, CHOSEN]
        )

        # 2. Mixer and loss.
        agents = layout.balancers if self.together else 1
        mixer = Mixer(agents, len(layout.truth), settings.mixer_width, together=self.together).to(self.device)
        self.loss = QMixerLoss(
            TensorDictSequential(values, best),
            TensorDictModule(mixer, in_keys=[CHOSEN, "eligible", "truth"], out_keys=["chosen_action_value"]),
            action_space="one-hot",
            delay_value=True,
        ).to(self.device)
        self.loss.set_keys(
            action=("agents", "action"),
            action_value=LEVEL_VALUES,
            local_value=CHOSEN,
            global_value="chosen_action_value",
        )
        self.loss.make_value_estimator(ValueEstimators.TDLambda, gamma=settings.gamma, lmbda=settings.trace)
        self.targets = SoftUpdate(self.loss, tau=settings.target_rate)

        # 3. Optimiser and replay.
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=settings.learning_rate)
        self.replay = PrioritisedReplay(settings)

    @property
    def network(self) -> SlotNetwork:
        """The agents' network."""
        return self._network

    def gains(self) -> tuple[float, float]:
        """Weights alone."""
        return self.recipe.network.weight_limit, 0.0

    def decide(self, outputs: Tensor, *, explore: bool, eligible: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the best levels; with exploration some are drawn."""
        chosen = outputs.argmax(-1)
        if explore:
            drawn = torch.randint_like(chosen, len(self.levels))
            chosen = torch.where(torch.rand_like(outputs[..., 0]) < self.exploration, drawn, chosen)
        weights = self.levels[chosen].unsqueeze(-1)
        action = nn.functional.one_hot(chosen, len(self.levels)).float()
        return action, nn.functional.pad(weights, (0, 1))

    def decided(self) -> Decided:
        """Levels of log weight."""
        levels = tuple((float(level), 0.0) for level in self.levels)
        return Decided(len(levels), levels=levels)

    def begin_iteration(self, iteration: int) -> None:
        """Set how much of the choices is drawn in an iteration."""
        share = min(iteration / max(EXPLORING * self.recipe.training.iterations, 1.0), 1.0)
        self.exploration = self.settings.exploration + share * (
            self.settings.exploration_end - self.settings.exploration
        )

    def improve(self, episode: Episode, iteration: int) -> Metrics:
        """Store the episode, then take the iteration's updates."""
        self.replay.begin(self.seed(iteration))
        self.replay.add(sequences.cut(episode, self.shape, self.normaliser, self._network, together=self.together))
        metrics: Metrics = {}
        for _ in range(self.settings.updates):
            metrics = self._update()
        return {**metrics, "replay/sequences": float(len(self.replay)), "charts/exploration": self.exploration}

    def _update(self) -> Metrics:
        sample = self.replay.sample()
        batch = self._transitions(sequences.refresh(sample, self.shape, self.normaliser, self._network))
        with self.autocast():
            losses = self.loss(batch)
        norm = self.descend(losses["loss"], self.optimiser, self.settings.max_gradient)
        self.targets.step()
        self.replay.update(sample["index"], batch["td_error"].squeeze(-1))
        return {"losses/loss": losses["loss"].item(), "losses/gradient": norm}

    def _transitions(self, observed: TensorDict) -> TensorDict:
        """Give actions the name that the loss expects, and the agents of an environment one reward."""
        batch = sequences.transitions(observed)
        batch["agents", "action"] = batch.pop("action")
        if self.together:
            present = batch["eligible"].any(-1).unsqueeze(-1)  # [B, T, L, 1]
            total = torch.where(present, batch["next", "reward"], 0.0).sum(-2)
            batch["next", "reward"] = total / present.sum(-2).clamp(min=1)
            for name in ("done", "terminated"):
                batch[name] = batch[name][..., 0, :]
                batch["next", name] = batch["next", name][..., 0, :]
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


class LevelValues(nn.Module):
    """The agents' network as the loss calls it: the value of each level, [B, T, (L,) S, K]."""

    def __init__(self, network: SlotNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, eligible: Tensor, renewed: Tensor, state: Tensor) -> Tensor:
        """Return the values."""
        values, _ = self.network(inputs, eligible, renewed, state[:, 0])
        return values


class Mixer(nn.Module):
    """Values of chosen levels [B, T, (L,) S, 1] to the value of the environment [B, T, 1].

    Agents that do not exist have the value 0. Independent agents (no axis L) keep their own values.
    """

    def __init__(self, agents: int, truth: int, width: int, *, together: bool) -> None:
        super().__init__()
        self.together = together
        if together:
            self.encoder = mlp(truth, width)
            self.mixer = QMixer(state_shape=(2 * width,), mixing_embed_dim=width, n_agents=agents, device="cpu")

    def forward(self, chosen: Tensor, eligible: Tensor, truth: Tensor) -> Tensor:
        """Average over backends, then mix the balancers."""
        count = eligible.sum(-1, keepdim=True).clamp(min=1)
        value = torch.where(eligible.unsqueeze(-1), chosen, 0.0).sum(-2) / count
        if not self.together:
            return value
        state = pool(self.encoder(truth.flatten(-3, -2)), eligible.flatten(-2))
        mixed: Tensor = self.mixer(value, state)
        return mixed


LEARNER = QmixLearner
