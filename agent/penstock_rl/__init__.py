"""The laboratory: scenarios, the agent's decisions on the simulator, evaluation, training."""
