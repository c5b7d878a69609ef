"""What a run of the laboratory is given and what it measures: the files between the program and its isolated part."""

from __future__ import annotations

from pathlib import Path

from penstock_api.rlpolicy import PolicySpec
from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(_Part):
    """One HTTP server."""

    processors: tuple[int, ...]  # of this machine, that its threads run on
    quota: float  # seconds of processor time in each period; 0: no limit
    period: float  # seconds
    limit: int  # requests served at once; 0: no limit
    backlog: int
    weight: float


class Setup(_Part):
    """Data planes, servers and policy of one run. The plan of the client lies beside it."""

    servers: tuple[Server, ...]
    balancers: int
    policy: PolicySpec
    features: str
    warmup: float  # seconds from time 0 after which the servers' accounts begin
    until: float  # seconds from time 0


class Usage(_Part):
    """Processor time of one server from the end of warm-up to the end."""

    seconds: float
    periods: int
    throttled: int
    throttled_seconds: float


class Measured(_Part):
    """What was measured beside the client's records."""

    servers: tuple[Usage, ...]
    seconds: float  # from the end of warm-up to the end, by the clock
    elsewhere: float  # processors that were busy with anything outside of the laboratory, in the mean
    stolen: float  # processors that the hypervisor gave to others, in the mean
    decisions: tuple[dict[str, int], ...]  # of each balancer's agent, by what they led to


class Files:
    """Where the parts of one run lie."""

    def __init__(self, directory: Path) -> None:
        self.setup = directory / "setup.json"
        self.plan = directory / "plan.txt"
        self.records = directory / "records.txt"
        self.measured = directory / "measured.json"
