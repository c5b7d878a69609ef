"""Metrics as TensorBoard reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Board:
    """Writes metrics by iteration; what a stopped run wrote after its last checkpoint is replaced."""

    def __init__(self, folder: Path, first: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first)

    def write(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Add one point to each curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
