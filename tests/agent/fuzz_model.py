#!/usr/bin/env python3
"""Fuzz target of model files: `python fuzz_model.py [libFuzzer's options] [corpora]`, from the root.

An input is a file. Whatever it contains, the loader returns a model or raises ModelError; a model that it returns
decides, and what the guardrails make of that is usable. Mutations repair the container, so that most of them reach the
checks behind it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

# The finder of an editable install brings loaders of its own, which cannot be instrumented: ours are read as they lie.
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
for folder in ("agent", "crds", "vpp-plugin/embedded"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))
with atheris.instrument_imports(include=["penstock_agent.models", "zipfile"]):
    import numpy as np
    from penstock_agent import decisions, models, policies
    from penstock_agent.guardrails import Guardrails
    from penstock_agent.policies import Decision, learned

    from tests.support.model_mutator import mutated
    from tests.support.models import observation

SEEN = [observation(time=time) for time in (0.0, 0.2)]


def one_input(data: bytes) -> None:
    try:
        model = models.read(data)
        chosen = learned.policy(model, policies.POLICIES)
    except models.ModelError as error:
        assert str(error)
        return
    state, previous = None, Decision(np.ones(6))
    for seen in SEEN:
        guarded, state = decisions.decide(chosen, seen, state, previous, Guardrails())
        previous = guarded.previous
        assert np.isfinite(guarded.weights).all()
        assert (guarded.weights[seen.eligible] > 0).all()


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    choose = random.Random(seed)
    new = atheris.Mutate(data, max_size) if choose.random() < 0.3 else mutated(data, choose)
    return new[:max_size]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()
