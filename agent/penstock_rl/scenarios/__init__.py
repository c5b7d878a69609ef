"""Scenarios: files that people write, generated ones, and the environments that they expand to."""
