"""Runs an environment of the simulator on real servers behind the real data plane; returns what the simulator does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock_api.rlpolicy import Heuristic, PolicySpec
from penstock_rl.evaluation.policies import Evaluated
from penstock_rl.simulation import Outcome
from penstock_sim import CLASS_FIELDS

from tools.lab import requests
from tools.lab.drawing import drawn
from tools.lab.errors import LabError
from tools.lab.replay import replay
from tools.lab.requests import UNFINISHED, Connections, Records
from tools.lab.servers import server_rows, share, spread
from tools.lab.setup import Measured, Setup

FloatArray = NDArray[np.float64]

LATE = 0.05  # of the mean duration: lateness of the client at the 99th percentile
STOLEN = 0.05


@dataclass(frozen=True)
class Run:
    """What happened, in the simulator's form, and how far it can be trusted."""

    outcome: Outcome
    records: Records
    measured: Measured

    @property
    def lateness(self) -> float:
        """99th percentile of the client's own lateness, in seconds."""
        return float(np.quantile(self.records.lateness, 0.99)) if len(self.records.sent) else 0.0

    @property
    def disturbance(self) -> str:
        """Why these are not the figures of data planes and servers alone; empty where they are."""
        bound = LATE * float(np.nanmean(self.outcome.duration))
        if self.lateness > bound:
            return f"the client was {self.lateness:.4f} s late (p99), more than {bound:.4f} s"
        if self.measured.stolen > STOLEN:
            return f"the hypervisor took {self.measured.stolen:.2f} processors"
        return ""


def run(environment: Mapping[str, object], evaluated: Evaluated, *, until: float, features: str) -> Run:
    """Run an environment whose servers this machine can have, until a time. LabError where something fails."""
    connections = drawn(environment, until)
    setup = make_setup(environment, evaluated, until, features)
    classes: FloatArray = np.asarray(environment["classes"], dtype=np.float64)
    sizes = classes[:, [CLASS_FIELDS.index("request_bytes"), CLASS_FIELDS.index("response_bytes")]]
    records, measured = replay(setup, requests.plan(connections, sizes))
    if not all(each.get("active") for each in measured.decisions):
        raise LabError(f"an agent never decided by its policy: {measured.decisions}")
    return Run(_outcome(environment, connections, records, measured), records, measured)


def make_setup(environment: Mapping[str, object], evaluated: Evaluated, until: float, features: str) -> Setup:
    """Return what the isolated part builds."""
    if not runs(evaluated):
        raise LabError(f"policy {evaluated.name}: no data plane has it; use another one")
    return Setup(
        servers=spread(server_rows(environment), sorted(os.sched_getaffinity(0))),
        balancers=len(np.asarray(environment["split"])),
        policy=policy_spec(evaluated),
        features=features,
        warmup=_warmup(environment),
        until=until,
    )


def runs(evaluated: Evaluated) -> bool:
    """Tell whether a data plane can run a policy: a heuristic that an RLPolicy may name, with settings that it has."""
    known = evaluated.heuristic in list(Heuristic) and evaluated.model is None
    return known and evaluated.base is None and evaluated.sharing is None


def policy_spec(evaluated: Evaluated) -> PolicySpec:
    """Return a policy as RLPolicy has it."""
    spec = {"heuristic": evaluated.heuristic, "scheduler": evaluated.scheduler.value}
    return PolicySpec.model_validate({**spec, "load": evaluated.load.value.title()})


def _warmup(environment: Mapping[str, object]) -> float:
    return float(str(environment["warmup"]))


def _outcome(
    environment: Mapping[str, object], connections: Connections, records: Records, measured: Measured
) -> Outcome:
    """Return requests in order of completion; those that were not done at the end are left out, as by the simulator."""
    ended = np.flatnonzero(records.server != UNFINISHED)
    rows = ended[np.argsort(records.done[ended], kind="stable")]
    connection = records.connection[rows]
    first = records.request[rows] == 0
    offered = np.array([share(row) for row in server_rows(environment)]) * measured.seconds
    return Outcome(
        arrival=np.where(first, connections.arrival[connection], records.sent[rows]),
        duration=records.duration[rows],
        server=records.server[rows],
        balancer=connections.balancer[connection],
        kind=connections.kind[connection],
        utilisation=np.array([each.seconds for each in measured.servers]) / offered,
    )
