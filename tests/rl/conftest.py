"""Tests of runs need the simulator's module."""

from importlib.util import find_spec

SIMULATED = ("batch", "evaluated_models", "interfaces", "runner", "simulation", "tables")
collect_ignore = [] if find_spec("penstock_sim") else [f"test_{name}.py" for name in SIMULATED]
