"""Decisions of the operator: pure functions from what is there to what should be.

No I/O, no clock of its own, no kopf: every function here is tested by tables.
"""
