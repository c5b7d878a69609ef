"""Columns of an environment's arrays, as the simulator has them."""

from __future__ import annotations

SERVER_FIELDS = (
    "cores",
    "speed",
    "limit",
    "backlog",
    "thrash_from",
    "thrash",
    "quota",
    "quota_period",
    "latency",
    "weight",
    "present",
)
CLASS_FIELDS = (
    "share",
    "work_kind",
    "work_mean",
    "work_shape",
    "work_max",
    "io_mean",
    "requests",
    "requests_random",
    "think_mean",
    "idle_share",
    "idle_mean",
    "request_bytes",
    "response_bytes",
)
EVENT_KINDS = ("speed", "cores", "stop", "start", "state", "weight")
WORK_KINDS = ("constant", "exponential", "lognormal", "pareto")
