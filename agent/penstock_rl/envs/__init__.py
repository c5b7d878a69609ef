"""Environments: scenarios in the simulator, as algorithms see them.

`batch` steps many scenarios at once and is what training uses; `single` (Gymnasium) and `parallel` (PettingZoo) show
one scenario through the usual interfaces. Observation, decision and guardrails are the agent's own functions.
"""
