"""Algorithms, one file each, to be read from top to bottom; the only package that imports torch.

`learner` loads the module of an algorithm by name, so that nothing here costs anything until training starts.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock_rl.algorithms.base import Learner
    from penstock_rl.recipes import Recipe
    from penstock_rl.training.layout import Layout

MODULES = {
    "sac-gru": "sac_gru",
    "rlb-sac": "rlb_sac",
    "qmix": "qmix",
    "ppo": "ppo",
    "imitation": "imitation",
}


def learner(recipe: Recipe, layout: Layout) -> Learner:
    """Make the learner that a recipe describes; raises ModuleNotFoundError without the extra `train`."""
    module = importlib.import_module(f"penstock_rl.algorithms.{MODULES[recipe.algorithm.name]}")
    logging.getLogger("torchrl").setLevel(logging.WARNING)  # its notes on buffers break the progress bar
    made: Learner = module.LEARNER(recipe, layout)
    return made
