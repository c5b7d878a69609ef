"""The numpy network of an agent gives what PyTorch's modules give."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_agent.models import Head, read
from penstock_agent.models.network import Network

from tests.support.models import SOME_FEATURES, model_file

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")


def rebuilt(model):
    """Return the model's forward pass by PyTorch's own layers."""
    arrays = {name: torch.from_numpy(values.copy()) for name, values in model.arrays.items()}

    def linear(name):
        weight = arrays[f"{name}.weight"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": arrays[f"{name}.bias"]})
        return layer

    encoder = torch.nn.Sequential(linear("encoder.0"), torch.nn.ReLU(), linear("encoder.1"), torch.nn.ReLU())
    decoder = torch.nn.Sequential(linear("decoder.0"), torch.nn.ReLU(), linear("decoder.1"))
    cell = torch.nn.GRUCell(model.metadata.hidden, model.metadata.hidden)
    if model.metadata.memory:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        cell.load_state_dict({name: arrays[f"memory.{name}"] for name in names})

    def forward(scores, eligible, hidden):
        code = encoder(scores)
        if model.metadata.memory:
            flat = cell(code.flatten(0, -2), None if hidden is None else hidden.flatten(0, -2))
            code = hidden = flat.reshape(code.shape)
        mask = eligible[..., None]
        mean = (code * mask).sum(-2, keepdim=True) / mask.sum(-2, keepdim=True).clamp(min=1)
        highest = code.masked_fill(~mask, -torch.inf).amax(-2, keepdim=True).nan_to_num(neginf=0.0)
        out = decoder(torch.cat([code, mean.expand_as(code), highest.expand_as(code)], -1))
        if model.metadata.head is Head.CONTINUOUS:
            return arrays["limits"] * torch.tanh(out), hidden
        return arrays["levels"][out.argmax(-1)], hidden

    return forward


@pytest.mark.parametrize("head", Head)
@pytest.mark.parametrize("memory", [False, True])
def test_numpy_equals_torch(head, memory):
    model = read(model_file(7, head=head, memory=memory, hidden=64))
    network, forward = Network(model.metadata, model.arrays), rebuilt(model)
    random = np.random.default_rng(2)
    hidden = other = None
    for _ in range(50):
        features = random.normal(0, 2, (3, 2, 16, len(SOME_FEATURES))).astype(np.float32)
        eligible = random.random((3, 2, 16)) < 0.8
        output = network(features, eligible, hidden)
        with torch.no_grad():
            scores = torch.from_numpy(network.normalised(features))
            residual, other = forward(scores, torch.from_numpy(eligible), other)
        np.testing.assert_allclose(output.residual, residual.numpy(), atol=1e-5)
        hidden = output.hidden
