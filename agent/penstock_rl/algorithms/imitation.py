"""Imitation by DAgger with a privileged critic.

S. Ross, G. Gordon, D. Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning", AISTATS 2011: the student decides, the teacher judges the states that the student reaches.

The teacher is the least marginal delay rule of A. Weinrib and S. Shenker with true capacities and the counts of all
balancers. Its index is not imitated by squared error, which shrinks the estimates to their mean: the loss is the
expected true marginal delay of the student's choice, made soft so that it has a gradient. A backend is chosen with a
probability proportional to score ** -beta, score = (count + base) / weight, as the scheduler would compute it.

A decision is in force until the next one, so its delay is that with the counts at both ends of the step. With those at
its begin alone the student fits weights to counts that have changed a moment later, and is worse than its anchor.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from penstock_rl.algorithms import sequences
from penstock_rl.algorithms.base import REPLAY, Decided, Learner, Metrics, Part
from penstock_rl.algorithms.networks import SlotNetwork
from penstock_rl.algorithms.replay import Replay
from penstock_rl.recipes import Imitation, Recipe
from penstock_rl.training.episodes import Episode
from penstock_rl.training.layout import Layout

SMALLEST = 1e-6
OWN_BASE = 1.0  # flows, divided by the number of balancers: the base where the anchor decides none


class ImitationLearner(Learner):
    """The student, and the states that it reached."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, layout)
        settings = recipe.algorithm
        if not isinstance(settings, Imitation):
            raise TypeError(f"algorithm: {settings.name!r} is not imitation")
        self.settings = settings
        self.shape = sequences.Shape(settings.burn_in if recipe.network.memory else 0, settings.sequence, layout.slots)
        self.cores, self.speed, self.active = (layout.truth.index(name) for name in ("cores", "speed", "active"))
        width, hidden = self.normaliser.width, recipe.network.hidden
        self._network = SlotNetwork(width, hidden, 2, memory=recipe.network.memory).to(self.device)
        self.optimiser = torch.optim.Adam(self._network.parameters(), lr=settings.learning_rate)
        self.seen = Replay(settings)

    @property
    def network(self) -> SlotNetwork:
        """The student."""
        return self._network

    def decide(self, outputs: Tensor, *, explore: bool, eligible: Tensor) -> tuple[Tensor, Tensor]:
        """Return tanh of the outputs, and the residual; the student does not explore."""
        action = torch.tanh(outputs)
        return action, action * action.new_tensor(self.gains())

    def decided(self) -> Decided:
        """Log weight and log base."""
        return Decided(2, limits=self.gains())

    def improve(self, episode: Episode, iteration: int) -> Metrics:
        """Add the states that the student reached, then minimise the expected delay over all of them."""
        self.seen.begin(self.seed(iteration))
        self.seen.add(sequences.cut(episode, self.shape, self.normaliser, self._network, together=False))
        metrics: Metrics = {}
        for _ in range(self.settings.updates):
            metrics = self._update()
        return {**metrics, "replay/sequences": float(len(self.seen))}

    def _update(self) -> Metrics:
        observed = sequences.refresh(self.seen.sample(), self.shape, self.normaliser, self._network)
        with self.autocast():
            inputs = (observed[name] for name in ("inputs", "eligible", "renewed"))
            outputs, _ = self._network(*inputs, observed["state"][:, 0])
            _, residual = self.decide(outputs, explore=False, eligible=observed["eligible"])
        loss, excess = self._expected_delay(observed, residual.float())
        norm = self.descend(loss, self.optimiser, self.settings.max_gradient)
        return {"losses/delay": loss.item(), "losses/excess_delay": excess.item(), "losses/gradient": norm}

    def _expected_delay(self, observed: TensorDict, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected marginal delay relative to the lowest of the VIP, and the same of the hard choice."""
        before, after = observed[:, :-1], observed[:, 1:]
        decision = before["anchor"] + residual[:, :-1]
        eligible = before["eligible"] & after["eligible"]
        ends = [self._delay_at(end, decision, eligible) for end in (before, after)]
        soft, hard = (torch.stack(each).mean() for each in zip(*ends, strict=True))
        return soft, hard - 1.0

    def _delay_at(self, state: TensorDict, decision: Tensor, eligible: Tensor) -> tuple[Tensor, Tensor]:
        """Return the delay of the soft and of the hard choice by a decision with the counts of a state."""
        score = log_score(state["count"], decision)
        chosen = torch.softmax((-self.settings.sharpness * score).masked_fill(~eligible, -torch.inf), -1)
        delay = self.true_delay(state["truth"].expm1())
        lowest = delay.masked_fill(~eligible, torch.inf).amin(-1, keepdim=True)
        relative = torch.where(eligible, delay / lowest, 0.0)
        some = eligible.any(-1) & lowest.isfinite().squeeze(-1)
        expected = torch.where(eligible, torch.nan_to_num(chosen) * relative, 0.0).sum(-1)[some].mean()
        hard = score.detach().masked_fill(~eligible, torch.inf).argmin(-1, keepdim=True)
        return expected, relative.gather(-1, hard).squeeze(-1)[some].mean()

    def true_delay(self, truth: Tensor) -> Tensor:
        """Return what one more request adds to the delay of all, in units of mean work: [..., S]."""
        cores, speed, active = (truth[..., column] for column in (self.cores, self.speed, self.active))
        return marginal_delay(cores, speed, active)

    def parts(self) -> dict[str, Part]:
        """Network, optimiser, moments of features, states."""
        return {
            "network": self._network,
            "optimiser": self.optimiser,
            "normaliser": self.normaliser,
            REPLAY: self.seen,
        }


def log_score(count: Tensor, decision: Tensor) -> Tensor:
    """Return log((count + base) / weight) of a decision (log weight, log base)."""
    weight, base = torch.nan_to_num(decision).unbind(-1)
    return torch.log(count.clamp(min=0) + base.exp() + SMALLEST) - weight


def marginal_delay(cores: Tensor, speed: Tensor, active: Tensor) -> Tensor:
    """Return [sigma(n + 1) + n (sigma(n + 1) - sigma(n))] / speed with sigma(m) = max(1, m / cores).

    sigma is how much longer work takes when m requests share the cores. A. Weinrib, S. Shenker, "Greed Is Not Enough:
    Adaptive Load Sharing in Large Heterogeneous Systems", INFOCOM 1988.
    """
    cores = cores.clamp(min=SMALLEST)
    stretch, before = ((active + 1) / cores).clamp(min=1), (active / cores).clamp(min=1)
    return (stretch + active * (stretch - before)) / speed.clamp(min=SMALLEST)


LEARNER = ImitationLearner
