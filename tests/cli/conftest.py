"""Tests of runs need the simulator's module."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("penstock_sim") else ["test_evaluate.py", "test_simulate.py"]
