"""VPP as in a pod, its control process, and an agent that steers it by what it measures of real servers and clients."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from penstock_agent.state import VipView

from tests.support import vpp
from tests.support.agent_process import AgentProcess, balanced, dataplane, policy
from tests.support.dataplane import VIP_IPV4, VIP_IPV6
from tests.support.http_load import HttpLoad, http_load
from tests.support.lab import HTTP_PORT, Lab, eventually, know_by_dscp, start_server, take_out_of_gre
from tests.support.lab import lab as build_lab
from tests.support.vpp_pod import Pod, pod_on

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

ADDRESSES = [VIP_IPV4, VIP_IPV6]
SERVICE_SECONDS = {"s1": 0.01, "s2": 0.06}
FAST = b"s1"
DSCP = 10
FORWARDING: dict[str, dict[str, Any]] = {
    "NAT": {},
    "GRE": {"forwarding": "GRE"},
    "L3DSR": {"forwarding": "L3DSR", "dscp": DSCP},
}


class Site:
    """A node with a pod and an agent, in front of servers of unequal speed."""

    def __init__(self, lab: Lab, pod: Pod, directory: Path, forwarding: str) -> None:
        self.lab = lab
        self.pod = pod
        self.agent = AgentProcess(lab, directory, pod.run_dir, pod.shm)
        self.port = 80 if forwarding == "NAT" else HTTP_PORT  # one-way, a server sees the VIP's port
        self._spec = FORWARDING[forwarding]

    def wish(self, heuristic: str) -> None:
        """Have the agent's files ask for a policy."""
        web = balanced(self.lab, ADDRESSES, self.port, HTTP_PORT, **self._spec)
        node = dataplane(type="vpp", features="full", staticEndpointCIDRs=["10.77.0.0/16", "fd77::/16"])
        self.agent.write(web, policy(heuristic), node)

    def load(self, address: str, *, kept: int = 0) -> AbstractContextManager[HttpLoad]:
        return http_load(self.lab, address, self.port, kept=kept, fresh=6)

    def even(self, version: int) -> bool:
        """Tell whether all backends have the same weight in VPP, as the policy `equal` wants it."""
        shown = self.agent.vip(version)
        if shown is None or (shown.policy, shown.fallback_reason) != ("equal", "") or not self.agent.settled(2):
            return False
        return len(set(self._in_force(shown).values())) == 1

    def _in_force(self, shown: VipView) -> dict[str, float]:
        status = next(each for each in self.pod.dump().vips if each.id == shown.id)
        return {each.id: each.weight for each in status.backends}

    def steered(self, version: int) -> VipView | None:
        """What the agent shows once it prefers the fast server clearly, and VPP has the weights that it wrote."""
        shown = self.agent.vip(version)
        if shown is None or shown.policy != "little" or shown.fallback_reason:
            return None
        in_force = self._in_force(shown)
        written = {each.id: each.weight for each in shown.backends}
        fast, slow = sorted(shown.backends, key=lambda each: str(each.address))
        clear = fast.weight and slow.weight and fast.weight > 2 * slow.weight
        # Between the two questions the agent may have taken another step.
        same = all(math.isclose(in_force[id_], weight or 0.0, rel_tol=0.3) for id_, weight in written.items())
        return shown if clear and same else None


@pytest.fixture(params=FORWARDING, scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose agent has brought its VIPs, one for each family, into VPP."""
    if reason := vpp.missing():
        pytest.skip(reason)
    vpp.plugin_directory()
    with build_lab("pn-vpa", 2, start_servers=False) as lab, pod_on(lab) as pod:
        for server in lab.servers:
            start_server(server, SERVICE_SECONDS[server.name])
            if request.param == "GRE":
                take_out_of_gre(server, ADDRESSES)
            if request.param == "L3DSR":
                know_by_dscp(server, ADDRESSES, DSCP)
        pod.prepare()
        pod.start()
        pod.control()
        built = Site(lab, pod, tmp_path_factory.mktemp("agent"), request.param)
        built.wish("equal")
        with built.agent.running():
            eventually(lambda: built.agent.settled(2))
            yield built


@pytest.mark.parametrize("address", ADDRESSES)
def test_weights_that_an_agent_measured_shift_load(site: Site, address: str) -> None:
    version = 6 if ":" in address else 4
    site.wish("equal")
    eventually(lambda: site.even(version))
    with site.load(address) as load:
        assert 0.25 < load.share_of_next(FAST, 60) < 0.75
        site.wish("little")
        eventually(lambda: site.steered(version), seconds=30)
        assert load.share_of_next(FAST, 200) > 0.75
    assert not load.errors()


def test_vpp_is_killed_under_load_and_the_agent_steers_again(site: Site) -> None:
    site.wish("equal")
    eventually(lambda: site.even(4))  # both servers get connections that are kept
    # Not more of those than of others: open flows that are idle would hold new ones off, and old ones measure nothing.
    with site.load(VIP_IPV4, kept=4) as load:
        eventually(lambda: all(asker.answers for asker in load.kept))
        site.wish("little")
        eventually(lambda: site.steered(4), seconds=40)
        state = site.agent.state()
        assert state is not None
        before = state.link.instance_id
        os.kill(site.pod.vpp_process(), signal.SIGKILL)

        def back() -> bool:
            state = site.agent.state()
            return state is not None and site.agent.settled(2) and state.link.instance_id != before

        eventually(back, seconds=30)
        asked = [sum(asker.answers.values()) for asker in load.kept]
        eventually(lambda: site.steered(4), seconds=40)
        assert load.share_of_next(FAST, 200) > 0.75
        again = [sum(asker.answers.values()) for asker in load.kept]
        assert all(later > earlier for earlier, later in zip(asked, again, strict=True))
        state = site.agent.state()
        assert state is not None
        assert state.link.reattached_flows >= len(load.kept)
    assert not load.errors()
    assert all(len(asker.answers) == 1 for asker in load.kept), "a connection was answered by two servers"
