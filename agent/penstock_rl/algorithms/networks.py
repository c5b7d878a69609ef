"""Networks that treat all backends alike: permuting the backends permutes the outputs, and any number of them fits.

    features -> normalise -> encoder (shared) -> GRU (shared) -> with pooled mean and maximum -> head

Axes: batch B, time T, perhaps balancers L, slots S. The numpy copy of this page is `penstock_agent.policies.learned`;
a test compares them. GRU and MLP are TorchRL's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor
from torch import Tensor, nn
from torchrl.modules import MLP, GRUModule, TanhNormal, set_recurrent_mode

from penstock_rl.training.layout import Layout

CLIP = 5.0  # standard deviations that a normalised feature may be away from the mean
SMALLEST_DEVIATION = 1e-3


class Normaliser(nn.Module):
    """Features to zero mean and unit variance; a flag for each group says whether any of it was measured.

    Features that were not measured (NaN) become 0, the mean. Moments are merged as by T. F. Chan, G. H. Golub,
    R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1982.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor
    members: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        width = len(layout.features)
        self.groups = len(layout.groups)
        self.width = width + self.groups
        self.register_buffer("count", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(width, dtype=torch.float64))  # sum of squared deviations
        members = nn.functional.one_hot(torch.tensor(layout.group_index), self.groups)
        self.register_buffer("members", members.float(), persistent=False)  # [features, groups]

    @property
    def deviation(self) -> Tensor:
        """Standard deviations; 1 before anything was measured."""
        variance = self.squares / self.count.clamp(min=1)
        return torch.where(self.count > 1, variance.sqrt().clamp(min=SMALLEST_DEVIATION), 1.0)

    def update(self, features: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Take the features of eligible slots into the moments."""
        rows = torch.from_numpy(features[mask]).to(self.mean)
        known = rows.isfinite()
        count = known.sum(0)
        mean = torch.where(known, rows, 0.0).sum(0) / count.clamp(min=1)
        squares = torch.where(known, rows - mean, 0.0).square().sum(0)
        total = (self.count + count).clamp(min=1)
        shift = mean - self.mean
        self.squares += squares + shift.square() * self.count * count / total
        self.mean += shift * count / total
        self.count += count

    def forward(self, features: Tensor) -> Tensor:
        """Return [..., features + groups]."""
        known = features.isfinite()
        scaled = (features - self.mean.to(features)) / self.deviation.to(features)
        values = torch.where(known, scaled, 0.0).clamp(-CLIP, CLIP)
        flags = known.to(values) @ self.members.to(values) > 0
        return torch.cat([values, flags.to(values)], -1)


def mlp(inputs: int, hidden: int, outputs: int | None = None, *, layers: int = 2) -> MLP:
    """Return linear layers with ReLU between; without `outputs` the last layer has width `hidden` and ReLU, too."""
    if outputs is None:
        return MLP(
            in_features=inputs,
            out_features=hidden,
            num_cells=[hidden] * (layers - 1),
            activation_class=nn.ReLU,
            activate_last_layer=True,
        )
    return MLP(in_features=inputs, out_features=outputs, num_cells=[hidden] * (layers - 1), activation_class=nn.ReLU)


def pool(values: Tensor, eligible: Tensor) -> Tensor:
    """Mean and maximum over eligible slots: [..., S, H] and [..., S] to [..., 2H]; 0 where none is eligible."""
    chosen = eligible.unsqueeze(-1)
    count = chosen.sum(-2).clamp(min=1)
    mean = torch.where(chosen, values, 0.0).sum(-2) / count
    highest = torch.where(chosen, values, -torch.inf).amax(-2)
    return torch.cat([mean, torch.where(chosen.any(-2), highest, 0.0)], -1)


def with_pool(values: Tensor, eligible: Tensor) -> Tensor:
    """Append the pooled context to every slot: [..., S, 3H]."""
    context = pool(values, eligible).unsqueeze(-2)
    return torch.cat([values, context.expand(*values.shape[:-1], context.shape[-1])], -1)


class Memory(nn.Module):
    """One GRU cell for each backend, whose state restarts where a slot has another backend."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.module = GRUModule(
            hidden, hidden, in_keys=["input", "state", "is_init"], out_keys=["output", ("next", "state")]
        )

    def forward(self, values: Tensor, renewed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: values [B, T, ..., S, H], renewed [B, T, ..., S], state [B, ..., S, H] before the first step.

        Returns the outputs, and the state after the last step.
        """
        steps = values.movedim(1, -2)  # [B, ..., S, T, H]
        restart = renewed.movedim(1, -1)
        kept = torch.where(restart[..., :1], 0.0, state)
        first = torch.zeros_like(steps)
        first[..., 0, :] = kept
        rows = TensorDict(
            {
                "input": steps.flatten(0, -3),
                "state": first.flatten(0, -3).unsqueeze(-2),
                "is_init": restart.flatten(0, -2).unsqueeze(-1),
            },
            [steps[..., 0, 0].numel(), steps.shape[-2]],
        )
        with set_recurrent_mode(True):
            output = self.module(rows)["output"].unflatten(0, steps.shape[:-2])
        return output.movedim(-2, 1), output[..., -1, :]


class Body(nn.Module):
    """Normalised inputs to an embedding of each backend with the pooled context.

    [B, T, ..., S, width] to [B, T, ..., S, 3H].
    """

    def __init__(self, width: int, hidden: int, *, memory: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.encoder = mlp(width, hidden)
        self.memory = Memory(hidden) if memory else None

    @property
    def width(self) -> int:
        """Width of the output."""
        return 3 * self.hidden

    def forward(self, inputs: Tensor, eligible: Tensor, renewed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings, and the state of the memory [B, ..., S, H] after the last step."""
        embedded = self.encoder(inputs)
        if self.memory is not None:
            embedded, state = self.memory(embedded, renewed, state)
        return with_pool(embedded, eligible), state


class SlotNetwork(nn.Module):
    """Body and decoder: some outputs for each backend. At the start all of them are 0."""

    def __init__(self, width: int, hidden: int, outputs: int, *, memory: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.body = Body(width, hidden, memory=memory)
        self.decoder = mlp(self.body.width, hidden, outputs)
        last = self.decoder[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, inputs: Tensor, eligible: Tensor, renewed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs [B, T, ..., S, outputs], and the state of the memory after the last step."""
        embedded, state = self.body(inputs, eligible, renewed, state)
        return self.decoder(embedded), state

    def next_state(self, inputs: Tensor, eligible: Tensor, renewed: Tensor, state: Tensor) -> Tensor:
        """Return the state of the memory after the last step alone; without a memory it stays as it is."""
        return state if self.body.memory is None else self.body(inputs, eligible, renewed, state)[1]

    def first_state(self, inputs: Tensor) -> Tensor:
        """Return the empty memory for inputs [B, T, ..., S, width]."""
        return inputs.new_zeros((*inputs[:, 0].shape[:-1], self.hidden))


class GaussianHead(nn.Module):
    """A SlotNetwork as TorchRL's actors use one: location and scale of each decided value, [B, T, S, A] each."""

    def __init__(self, network: SlotNetwork) -> None:
        super().__init__()
        self.network = network
        self.split = NormalParamExtractor("biased_softplus_0.3", scale_lb=1e-3)

    def forward(self, inputs: Tensor, eligible: Tensor, renewed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale; the first half of the network's outputs is the location."""
        outputs, _ = self.network(inputs, eligible, renewed, state[:, 0])
        location, scale = self.split(outputs)
        return location, scale


class SlotActions(TanhNormal):
    """Independent values of eligible slots in (-1, 1), [..., S, A].

    Log-probabilities are means over these values, not sums: entropy, temperature and probability ratios then do not
    depend on how many backends a VIP has.
    """

    def __init__(self, loc: Tensor, scale: Tensor, eligible: Tensor) -> None:
        self.decided = eligible.unsqueeze(-1).expand_as(loc)
        super().__init__(loc, scale, event_dims=0)

    def _mean(self, each: Tensor) -> Tensor:
        chosen = torch.where(self.decided, each, 0.0).sum((-2, -1))
        return chosen / self.decided.sum((-2, -1)).clamp(min=1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return [...]: the mean over the values of eligible slots."""
        return self._mean(super().log_prob(value))

    def rsample_and_log_prob(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Sample with gradients, and score."""
        sample, each = super().rsample_and_log_prob(sample_shape)
        return sample, self._mean(each)

    def sample_and_log_prob(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Sample without gradients, and score."""
        sample, each = super().sample_and_log_prob(sample_shape)
        return sample, self._mean(each)


class Critic(nn.Module):
    """Value of an action or, without actions, of a state: [..., S, *] to [..., 1]. It has no memory.

    In training it reads the truth, which holds what a memory would have to infer.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.encoder = mlp(width, hidden)
        self.head = mlp(2 * hidden, hidden, 1)

    def forward(self, eligible: Tensor, *parts: Tensor) -> Tensor:
        """Return the value of the parts, which together have the width."""
        inputs = torch.where(eligible.unsqueeze(-1), torch.cat(parts, -1), 0.0)
        value: Tensor = self.head(pool(self.encoder(inputs), eligible))
        return value


def scale_truth(truth: Tensor) -> Tensor:
    """Return log(1 + truth): its columns are counts, cores and speeds, none below 0. What is not known becomes 0."""
    return torch.nan_to_num(truth).clamp(min=0).log1p()
