"""The control protocol, answered by the process beside a VPP: what the agent says to any data plane."""

from __future__ import annotations

from collections.abc import Iterator

import penstock_core
import pytest
from penstock_embedded import client

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, vip
from tests.support.lab import UDP_PORT, Lab, eventually
from tests.support.vpp import RunningVpp, VppControl, running_control

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]


@pytest.fixture
def control(balancer: RunningVpp) -> Iterator[VppControl]:
    with running_control(balancer) as running:
        yield running


def test_what_is_applied_balances_and_is_dumped(lab: Lab, control: VppControl) -> None:
    udp = [{"id": s.name, "address": s.ipv4, "port": UDP_PORT} for s in lab.servers]
    wanted = (vip(lab), vip(lab, VIP_IPV6), vip(lab, port=53, protocol="UDP", backends=udp))
    result = control.apply(*wanted)
    assert result.changed
    assert not result.errors
    assert not any(each.error for each in result.vips)
    assert not control.apply(*wanted).changed
    for address in (VIP_IPV4, VIP_IPV6):
        assert {get(lab, address) for _ in range(24)} == {b"s1", b"s2"}
    with udp_socket(lab, VIP_IPV4, 53) as datagrams:
        datagrams.send(b"hello")
        assert datagrams.recv(100).endswith(b" hello")
    dump = control.dump()
    status = next(each for each in dump.vips if each.key == f"test/{VIP_IPV4}/TCP/80")
    assert {each.id for each in status.backends} == {"s1", "s2"}
    assert sum(each.flows for each in status.backends) == 24
    assert control.stats().forwarded > 0
    assert control.hello().type == "vpp"
    assert control.hello().generation == 2


def test_an_agent_hears_which_policy_it_is_to_use(balancer: RunningVpp, control: VppControl) -> None:
    assert control.stats().policy == ""
    balancer.quiet("lb rl agent little")
    assert control.stats().policy == "little"
    balancer.quiet("lb rl agent follow")
    assert control.stats().policy == ""


def test_frames_are_where_the_dump_says(lab: Lab, balancer: RunningVpp, control: VppControl) -> None:
    control.apply(vip(lab))
    (status,) = control.dump().vips
    reader = penstock_core.FrameReader(str(balancer.shm / status.frames.lstrip("/")))
    assert reader.instance_id == control.hello().instance_id
    assert reader.read().active.sum() == 2


def test_a_vip_that_is_refused_says_why_and_leaves_the_others(lab: Lab, control: VppControl) -> None:
    good, bad = vip(lab), vip(lab, port=81, scheduler={"type": "maglev", "table_size": 1000})
    result = control.try_apply(good, bad)
    errors = {each.id: each.error for each in result.vips}
    assert errors[good["id"]] is None
    refused = errors[bad["id"]]
    assert refused is not None
    assert (refused.code, refused.field) == ("invalid", "scheduler.table_size")
    assert get(lab, VIP_IPV4) in {b"s1", b"s2"}


def test_what_is_left_out_drains_and_goes(lab: Lab, control: VppControl) -> None:
    control.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        control.apply()
        kept.get()
        assert [each.key for each in control.dump().vips] == [f"test/{VIP_IPV4}/TCP/80"]
    eventually(lambda: not control.dump().vips)


def test_a_vpp_that_was_killed_is_noticed_and_told_again(lab: Lab, balancer: RunningVpp, control: VppControl) -> None:
    control.apply(vip(lab))
    before = control.hello()
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        balancer.kill()
        with pytest.raises(client.ControlError, match="VPP does not answer"):
            control.hello()
        balancer.restart()
        eventually(control.answers)
        after = control.hello()
        assert after.instance_id != before.instance_id
        assert after.generation is None  # the agent sees that, and says it again
        assert after.reattached_flows >= 1
        assert kept.get() == name
        assert not any(each.error for each in control.apply(vip(lab)).vips)
        assert kept.get() == name
    assert {each.id for each in control.dump().vips[0].backends} == {"s1", "s2"}


def test_a_control_process_that_starts_anew_changes_nothing(lab: Lab, control: VppControl) -> None:
    control.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        control.stop()
        assert kept.get() == name
        control.start()
        assert {each.id for each in control.dump().vips[0].backends} == {"s1", "s2"}
        assert not any(each.error for each in control.apply(vip(lab)).vips)
        assert kept.get() == name


def test_withdrawn_is_gone_and_can_come_again(lab: Lab, balancer: RunningVpp, control: VppControl) -> None:
    control.apply(vip(lab))
    control.withdraw()
    assert not list(balancer.shm.iterdir())
    assert not control.dump().vips
    assert control.stats().forwarded == 0
    control.apply(vip(lab))
    assert get(lab, VIP_IPV4) in {b"s1", b"s2"}
