"""The node side: desired state to the data plane; frames to observation, policy, guardrail, weights."""
