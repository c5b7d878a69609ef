"""The network of a model: equivariant over slots, evaluated with numpy in single precision.

Encoder per slot, optional GRU cell per slot (K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder
for Statistical Machine Translation", EMNLP 2014, in the form that PyTorch computes), mean and maximum over eligible
slots beside each slot's own state (M. Zaheer et al., "Deep Sets", NeurIPS 2017), decoder per slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_agent.models.metadata import Head, Metadata
from penstock_agent.observation import BoolArray

Float32Array = NDArray[np.float32]
Arrays = Mapping[str, Float32Array]

WIDEST_SCORE = 5.0
"""Bound of a normalised feature, in standard deviations."""


def groups(features: Sequence[str]) -> tuple[str, ...]:
    """Name the groups of features, in the order in which they first appear."""
    return tuple(dict.fromkeys(name.partition("/")[0] for name in features))


def shapes(metadata: Metadata, levels: int) -> dict[str, tuple[int, ...]]:
    """Return the arrays that a model has, with their shapes; `levels` is their number, for that head."""
    features, hidden = len(metadata.features), metadata.hidden
    outputs = 2 if metadata.head is Head.CONTINUOUS else levels
    memory = {
        "memory.weight_ih": (3 * hidden, hidden),
        "memory.weight_hh": (3 * hidden, hidden),
        "memory.bias_ih": (3 * hidden,),
        "memory.bias_hh": (3 * hidden,),
    }
    return {
        "mean": (features,),
        "std": (features,),
        "encoder.0.weight": (hidden, features + len(groups(metadata.features))),
        "encoder.0.bias": (hidden,),
        "encoder.1.weight": (hidden, hidden),
        "encoder.1.bias": (hidden,),
        **(memory if metadata.memory else {}),
        "decoder.0.weight": (hidden, 3 * hidden),
        "decoder.0.bias": (hidden,),
        "decoder.1.weight": (outputs, hidden),
        "decoder.1.bias": (outputs,),
        **({"limits": (2,)} if metadata.head is Head.CONTINUOUS else {"levels": (levels, 2)}),
    }


@dataclass(frozen=True, slots=True)
class Output:
    """Of one evaluation."""

    residual: Float32Array  # [..., slots, 2]: added to log weight and log base
    values: Float32Array  # [..., slots, outputs]: of the last layer
    hidden: Float32Array | None  # [..., slots, hidden], for the next step; None without memory


class Network:
    """A model's arrays, prepared for evaluation. The arrays must have the shapes of `shapes`."""

    def __init__(self, metadata: Metadata, arrays: Arrays) -> None:
        self._metadata = metadata
        self._arrays = arrays
        self._layers = {
            name.removesuffix(".weight"): (np.ascontiguousarray(values.T), arrays[name.removesuffix("weight") + "bias"])
            for name, values in arrays.items()
            if name.endswith(".weight")
        }
        names = groups(metadata.features)
        members = [[name.partition("/")[0] == group for group in names] for name in metadata.features]
        self._members = np.array(members, dtype=np.float32)
        if metadata.memory:
            self._inputs = np.ascontiguousarray(arrays["memory.weight_ih"].T), arrays["memory.bias_ih"]
            self._recurrent = np.ascontiguousarray(arrays["memory.weight_hh"].T), arrays["memory.bias_hh"]

    def __call__(self, features: Float32Array, eligible: BoolArray, hidden: Float32Array | None) -> Output:
        """Evaluate features [..., slots, features]; hidden states are those of the step before, None at first."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._evaluate(features, eligible, hidden)

    def _evaluate(self, features: Float32Array, eligible: BoolArray, hidden: Float32Array | None) -> Output:
        code = _rectified(self._linear("encoder.0", self.normalised(features)))
        code = _rectified(self._linear("encoder.1", code))
        if self._metadata.memory:
            code = hidden = self._remembered(code, hidden)
        code = np.concatenate((code, _pooled(code, eligible)), axis=-1)
        values = self._linear("decoder.1", _rectified(self._linear("decoder.0", code)))
        return Output(self._residual(values), values, hidden)

    def normalised(self, features: Float32Array) -> Float32Array:
        """Return scores within [-5, 5] and a flag per group: 1 where any of its features is measured."""
        measured = np.isfinite(features)
        scores = (np.where(measured, features, self._arrays["mean"]) - self._arrays["mean"]) / self._arrays["std"]
        scores = np.minimum(np.maximum(scores, -WIDEST_SCORE), WIDEST_SCORE)
        flags = _product(measured.astype(np.float32), self._members) > 0
        return np.concatenate((scores, flags), axis=-1, dtype=np.float32)

    def _linear(self, name: str, values: Float32Array) -> Float32Array:
        weight, bias = self._layers[name]
        return _product(values, weight) + bias

    def _remembered(self, values: Float32Array, hidden: Float32Array | None) -> Float32Array:
        if hidden is None:
            hidden = np.zeros(values.shape, dtype=np.float32)
        width = values.shape[-1]
        new = _product(values, self._inputs[0]) + self._inputs[1]
        old = _product(hidden, self._recurrent[0]) + self._recurrent[1]
        gates = _sigmoid(new[..., : 2 * width] + old[..., : 2 * width])
        reset, update = gates[..., :width], gates[..., width:]
        proposed = np.tanh(new[..., 2 * width :] + reset * old[..., 2 * width :])
        return np.asarray(proposed + update * (hidden - proposed), dtype=np.float32)

    def _residual(self, values: Float32Array) -> Float32Array:
        if self._metadata.head is Head.CONTINUOUS:
            return np.asarray(self._arrays["limits"] * np.tanh(values), dtype=np.float32)
        return np.asarray(self._arrays["levels"][np.argmax(values, axis=-1)], dtype=np.float32)


def _product(values: Float32Array, matrix: Float32Array) -> Float32Array:
    """Multiply the last axis: in one call of BLAS, however many axes there are before it."""
    if values.ndim == 2:
        return values @ matrix
    flat = values.reshape(-1, values.shape[-1]) @ matrix
    return np.asarray(flat.reshape(*values.shape[:-1], matrix.shape[-1]))


def _pooled(values: Float32Array, eligible: BoolArray) -> Float32Array:
    """Return mean and maximum over eligible slots, repeated at each slot; 0 where there is none."""
    mask = eligible[..., None]
    count = np.add.reduce(mask, axis=-2, keepdims=True)
    mean = np.add.reduce(values * mask, axis=-2, keepdims=True) / np.maximum(count, 1).astype(np.float32)
    highest = np.maximum.reduce(values, axis=-2, keepdims=True, where=mask, initial=-np.inf)
    pooled = np.concatenate((mean, np.where(count > 0, highest, np.float32(0))), axis=-1)
    return np.broadcast_to(pooled, (*values.shape[:-1], pooled.shape[-1]))


def _rectified(values: Float32Array) -> Float32Array:
    return np.asarray(np.maximum(values, np.float32(0)))


def _sigmoid(values: Float32Array) -> Float32Array:
    """Return 1 / (1 + exp(-values)), which tanh computes without overflow."""
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * values) + half)
