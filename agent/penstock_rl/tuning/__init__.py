"""Tuning of a policy's parameters by CMA-ES in the simulator."""
