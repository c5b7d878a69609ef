"""Laboratories for tests of the embedded data plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dataplane import VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import UDP_PORT, Lab
from tests.support.lab import lab as build_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A client, a balancer, two servers; nothing of ours on the balancer."""
    with build_lab("pn-emb", 2) as built:
        yield built


@pytest.fixture(scope="session")
def process(lab: Lab) -> Iterator[RunningDataplane]:
    """A data plane process for the session."""
    with running_dataplane(lab) as running:
        yield running


@pytest.fixture
def dataplane(process: RunningDataplane) -> Iterator[RunningDataplane]:
    """A data plane that has been told nothing, or was withdrawn; it is withdrawn again at the end."""
    yield process
    if process.process.poll() is not None:
        process.restart()
    process.withdraw()


@pytest.fixture
def balanced(lab: Lab, dataplane: RunningDataplane) -> RunningDataplane:
    """A data plane with a VIP of each family and protocol over both servers."""
    udp = [{"id": s.name, "address": s.ipv4, "port": UDP_PORT} for s in lab.servers]
    udp6 = [{"id": s.name, "address": s.ipv6, "port": UDP_PORT} for s in lab.servers]
    dataplane.apply(
        vip(lab),
        vip(lab, VIP_IPV6),
        vip(lab, port=53, protocol="UDP", backends=udp),
        vip(lab, VIP_IPV6, port=53, protocol="UDP", backends=udp6),
    )
    return dataplane
