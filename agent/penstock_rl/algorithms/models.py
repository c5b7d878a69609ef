"""From a checkpoint to the model file that an agent loads."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock_agent import features
from penstock_agent.models import Card, Head, Metadata, Result
from penstock_embedded.messages import SchedulerLoad
from torch import Tensor

from penstock_rl import algorithms, export
from penstock_rl.algorithms import checkpoints
from penstock_rl.algorithms.base import Learner
from penstock_rl.algorithms.networks import SlotNetwork
from penstock_rl.recipes import Recipe
from penstock_rl.training.layout import Layout

LIBRARIES = ("penstock", "torch", "torchrl", "numpy")


def write(checkpoint: Path, output: Path) -> str:
    """Write the network of a checkpoint with its card, and return its digest; raises CheckpointError."""
    content = checkpoints.load(checkpoint)
    recipe = Recipe.model_validate_json(content["recipe"])
    learner = algorithms.learner(recipe, _layout(content["layout"]))
    learner.load_state(content["learner"])
    return export.write(output, network_file(learner), _card(recipe, content))


def network_file(learner: Learner) -> export.NetworkFile:
    """Return a learner's network as the agent evaluates it."""
    recipe, decided = learner.recipe, learner.decided()
    metadata = Metadata(
        features=learner.layout.features,
        features_version=features.VERSION,
        anchor=recipe.environment.anchor,
        load=SchedulerLoad(recipe.environment.load),
        head=Head.CONTINUOUS if decided.levels is None else Head.LEVELS,
        use_base=True,  # that of the anchor, where the network changes none
        hidden=recipe.network.hidden,
        memory=learner.network.body.memory is not None,
        step=recipe.environment.step,
    )
    arrays = {
        "mean": _array(learner.normaliser.mean),
        "std": _array(learner.normaliser.deviation),
        **_layers(learner.network, decided.outputs),
    }
    if decided.levels is None:
        return export.NetworkFile(metadata, {**_two_outputs(arrays), "limits": np.array(decided.limits, np.float32)})
    return export.NetworkFile(metadata, {**arrays, "levels": np.array(decided.levels, np.float32)})


def _layers(network: SlotNetwork, outputs: int) -> dict[str, NDArray[np.float32]]:
    """Name the layers as `penstock_agent.models.network.shapes`; the first outputs of the decoder are decisions."""
    found = {}
    for part, module in (("encoder", network.body.encoder), ("decoder", network.decoder)):
        linear = [layer for layer in module if hasattr(layer, "weight")]
        for index, layer in enumerate(linear):
            found[f"{part}.{index}.weight"], found[f"{part}.{index}.bias"] = _array(layer.weight), _array(layer.bias)
    for kind in ("weight", "bias"):
        found[f"decoder.1.{kind}"] = found[f"decoder.1.{kind}"][:outputs]
    if network.body.memory is not None:
        gru = network.body.memory.module.gru
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            found[f"memory.{kind}"] = _array(getattr(gru, f"{kind}_l0"))
    return found


def _two_outputs(arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Append an output of 0 for the base where only weights are decided."""
    missing = 2 - len(arrays["decoder.1.bias"])
    padded = {
        name: np.pad(arrays[name], [(0, missing)] + [(0, 0)] * (arrays[name].ndim - 1))
        for name in ("decoder.1.weight", "decoder.1.bias")
    }
    return {**arrays, **padded}


def _array(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().cpu().numpy().astype(np.float32)
    return found


def _layout(stored: dict[str, Any]) -> Layout:
    return Layout(tuple(stored["features"]), tuple(stored["truth"]), stored["balancers"], stored["slots"])


def _card(recipe: Recipe, content: dict[str, Any]) -> Card:
    seed = recipe.training.seed
    last = content["evaluations"][-1]
    count = recipe.scenarios.evaluation_environments
    what = f"mean completion time against `{recipe.environment.anchor}`, {count} environments kept for choosing"
    return Card(
        name=recipe.name,
        algorithm=recipe.algorithm.name,
        recipe=recipe.model_dump_json(indent=1, exclude_defaults=True),
        scenarios=tuple(dict.fromkeys(name for stage in recipe.scenarios.curriculum for name in stage.scenarios)),
        seeds=(seed,),
        steps=content["decisions"],
        commands=(f"penstock train {recipe.name}.yaml --seed {seed}",),
        versions={name: version(name) for name in LIBRARIES},
        results=(Result(what=what, value=last["change"], low=last["low"], high=last["high"]),),
    )
