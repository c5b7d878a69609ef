"""A DataPlane of type vpp serves a VIP on a node of its own, beside the embedded one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from e2e.cluster.processes import wait_until
from e2e.images import vpp
from e2e.load import Load, running
from e2e.shop import REPORTS, Shop, assert_nothing_failed
from e2e.vpp_node import PROGRAM, curl, processes, serving

pytestmark = pytest.mark.skipif(bool(vpp.missing()), reason=vpp.missing() or "VPP is here")


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Address of a VIP that VPP serves."""
    with serving(shop) as found:
        yield found


def test_both_data_planes_serve(shop: Shop, address: str) -> None:
    assert curl(shop, address) == "200"
    assert curl(shop, shop.address) == "200"
    assert address != shop.address


def test_requests_reach_all_servers_and_none_fails(shop: Shop, address: str) -> None:
    report = REPORTS / "vpp.jsonl"
    report.parent.mkdir(parents=True, exist_ok=True)
    program = shop.installation.cluster.client_program("loadgen")
    with running(program, Load(f"http://{address}/", 50.0, 10), report) as load:
        found = load.finish()
    assert_nothing_failed(found)
    assert len(found.summary.backends) == shop.replicas


def test_vpp_is_killed_and_connections_go_on(shop: Shop, address: str) -> None:
    program = shop.installation.cluster.client_program("loadgen")
    with running(program, Load(f"http://{address}/", 50.0, 15, new_share=0.2), REPORTS / "vpp-killed.jsonl") as load:
        assert wait_until(lambda: len(load.intervals()) >= 3, 20)
        (victim,) = processes(shop, PROGRAM)
        os.kill(victim, signal.SIGKILL)
        found = load.finish()
    assert_nothing_failed(found)
    assert processes(shop, PROGRAM) != [victim]
