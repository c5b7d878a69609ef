"""An agent and the embedded data plane as two processes in a laboratory, with real traffic through both."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, balanced, policy
from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, running_dataplane
from tests.support.lab import HTTP_PORT, eventually
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns


class Rig:
    """An agent beside a running data plane."""

    def __init__(self, lab, dataplane, directory):
        self.lab = lab
        self.dataplane = dataplane
        self.agent = AgentProcess(lab, directory, dataplane.settings.run_dir, dataplane.settings.shm_dir)

    def write(self, heuristic):
        self.agent.write(balanced(self.lab, [VIP_IPV4, VIP_IPV6], 80, HTTP_PORT), policy(heuristic))

    def settled(self):
        return self.agent.settled(2)


@pytest.fixture(scope="module")
def lab():
    with build_lab("pn-agent", 2) as built:
        yield built


@pytest.fixture
def rig(lab):
    directory = Path(tempfile.mkdtemp(prefix="penstock-agent-"))
    try:
        with running_dataplane(lab) as dataplane:
            try:
                yield Rig(lab, dataplane, directory)
            finally:
                if dataplane.process.poll() is None:
                    dataplane.withdraw()
    finally:
        shutil.rmtree(directory)


def test_traffic_is_measured_and_weighed(rig):
    rig.write("little")
    with rig.agent.running():
        eventually(rig.settled)
        for _ in range(40):
            get(rig.lab, VIP_IPV4)
            get(rig.lab, VIP_IPV6)

        def measured():
            vip = rig.agent.vip()
            done = vip and sum(b.flows for b in vip.backends) == 40 and all(b.fct for b in vip.backends)
            return vip if done else None

        vip = eventually(measured)
        assert {str(b.address) for b in vip.backends} == {server.ipv4 for server in rig.lab.servers}
        assert (vip.policy, vip.fallback_reason, vip.scheduler) == ("little", "", "sed")
        assert all(b.weight and b.weight > 0 and b.healthy for b in vip.backends)
        assert vip.frame_age < 1
        dumped = {b.id: b.weight for v in rig.dataplane.dump().vips if v.id == vip.id for b in v.backends}
        shown = {b.id: b.weight for b in rig.agent.vip().backends}
        assert dumped == pytest.approx(shown, rel=0.3)


def test_a_restarted_agent_leaves_the_data_plane_alone(rig):
    rig.write("lsq")
    with rig.agent.running():
        eventually(rig.settled)
    generation = rig.dataplane.hello().generation
    with HttpConnection(rig.lab, VIP_IPV4) as connection:
        assert connection.get()
        with rig.agent.running():
            eventually(rig.settled)
            assert rig.agent.state().applies == 0
            assert connection.get()
    assert rig.dataplane.hello().generation == generation


def test_a_killed_data_plane_goes_on_and_gets_its_state_again(rig):
    rig.write("lsq")
    with rig.agent.running():
        eventually(rig.settled)
        before = rig.agent.state().link.instance_id
        with HttpConnection(rig.lab, VIP_IPV4) as connection:
            assert connection.get()
            rig.dataplane.kill_child()
            assert connection.get()
            eventually(lambda: rig.settled() and rig.agent.state().link.instance_id != before)
            assert connection.get()

        def fresh():
            vip = rig.agent.vip()
            return vip and not vip.fallback_reason and vip.frame_age is not None and vip.frame_age < 1

        eventually(fresh)
        assert get(rig.lab, VIP_IPV4)


def test_a_failed_server_gets_no_traffic(rig):
    rig.write("lsq")
    server = rig.lab.servers[1]
    with rig.agent.running():
        eventually(rig.settled)
        server.namespace.sh("ip link set eth0 down")
        try:

            def cut():
                vip = rig.agent.vip()
                return vip and {b.state for b in vip.backends if str(b.address) == server.ipv4} == {"failed"}

            eventually(cut)
            eventually(rig.settled)
            assert {get(rig.lab, VIP_IPV4) for _ in range(10)} == {rig.lab.servers[0].name.encode()}
        finally:
            server.namespace.sh(
                f"""ip link set eth0 up
                ip -6 address add {server.ipv6}/64 dev eth0 nodad
                ip route replace default via 10.77.2.1
                ip route replace default via fd77:2::1"""
            )
        eventually(lambda: (v := rig.agent.vip()) and all(b.state == "active" for b in v.backends))


DROP_FORWARDED = """nft add table inet strict
nft add chain inet strict forward { type filter hook forward priority 0 ; policy drop ; }"""


def test_a_firewall_that_drops_forwarded_packets_is_noticed_while_checks_pass(rig):
    """Health checks are packets of the node itself: a FORWARD policy does not concern them."""
    rig.write("lsq")
    with rig.agent.running():
        eventually(rig.settled)
        assert get(rig.lab, VIP_IPV4)
        rig.lab.balancer.sh(DROP_FORWARDED)
        try:

            def noticed():
                with contextlib.suppress(OSError):
                    get(rig.lab, VIP_IPV4)
                vip = rig.agent.vip()
                return vip if vip and vip.no_path else None

            vip = eventually(noticed, seconds=60)
            assert all(backend.healthy for backend in vip.backends)
        finally:
            rig.lab.balancer.sh("nft delete table inet strict")
        eventually(lambda: get(rig.lab, VIP_IPV4))
        eventually(lambda: not rig.agent.vip().no_path)
