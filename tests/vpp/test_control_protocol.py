"""The control protocol, answered by the process beside a VPP: what the agent says to any data plane."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import penstock_core
import pytest
from penstock_embedded import client
from penstock_embedded.messages import ApplyResult, DesiredState, Dump, Hello, Method, Stats

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import KEY, VIP_IPV4, VIP_IPV6, sources, vip
from tests.support.lab import UDP_PORT, Lab, eventually
from tests.support.vpp import RunningVpp

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns, pytest.mark.timeout(60, func_only=True)]

PROGRAM = """
import sys
from penstock_vpp import main, settings
sys.exit(main.run(settings.Settings.model_validate_json(sys.argv[1])))
"""


class Control:
    """A process beside a VPP, and a client of its control socket."""

    def __init__(self, balancer: RunningVpp, lab: Lab, run_dir: Path) -> None:
        from penstock_vpp.settings import Settings

        self.lab = lab
        self.settings = Settings(run_dir=run_dir, vpp_socket=balancer.directory / "api.sock")
        self._generation = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, self.settings.model_dump_json()], stdout=2)
        eventually(self.answers, seconds=10)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0

    def answers(self) -> bool:
        try:
            self.hello()
        except client.ControlError:
            return False
        return True

    def ask(self, method: Method, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return client.request(self.settings.socket_path, method, params, timeout=20)

    def hello(self) -> Hello:
        return Hello.model_validate(self.ask(Method.HELLO))

    def dump(self) -> Dump:
        return Dump.model_validate(self.ask(Method.DUMP))

    def stats(self) -> Stats:
        return Stats.model_validate(self.ask(Method.STATS))

    def apply(self, *vips: dict[str, Any]) -> ApplyResult:
        self._generation += 1
        state = {
            "generation": self._generation,
            "scheduler_key": KEY,
            "nat_sources": sources(self.lab),
            "vips": vips,
        }
        params = DesiredState.model_validate(state).model_dump(mode="json")
        return ApplyResult.model_validate(self.ask(Method.APPLY, params))


@pytest.fixture
def control(lab: Lab, balancer: RunningVpp) -> Iterator[Control]:
    with tempfile.TemporaryDirectory(prefix="pn-vpp-") as directory:
        running = Control(balancer, lab, Path(directory))
        try:
            yield running
        finally:
            running.stop()
            (balancer.shm / "penstock.state").unlink(missing_ok=True)


def test_what_is_applied_balances_and_is_dumped(lab: Lab, control: Control) -> None:
    udp = [{"id": s.name, "address": s.ipv4, "port": UDP_PORT} for s in lab.servers]
    wanted = (vip(lab), vip(lab, VIP_IPV6), vip(lab, port=53, protocol="UDP", backends=udp))
    result = control.apply(*wanted)
    assert result.changed
    assert not result.errors
    assert not any(each.error for each in result.vips)
    assert not control.apply(*wanted).changed
    for address in (VIP_IPV4, VIP_IPV6):
        assert {get(lab, address) for _ in range(12)} == {b"s1", b"s2"}
    with udp_socket(lab, VIP_IPV4, 53) as datagrams:
        datagrams.send(b"hello")
        assert datagrams.recv(100).endswith(b" hello")
    dump = control.dump()
    status = next(each for each in dump.vips if each.key == f"test/{VIP_IPV4}/TCP/80")
    assert {each.id for each in status.backends} == {"s1", "s2"}
    assert sum(each.flows for each in status.backends) == 12
    assert control.stats().forwarded > 0
    assert control.hello().type == "vpp"
    assert control.hello().generation == 2


def test_frames_are_where_the_dump_says(lab: Lab, balancer: RunningVpp, control: Control) -> None:
    control.apply(vip(lab))
    (status,) = control.dump().vips
    reader = penstock_core.FrameReader(str(balancer.shm / status.frames.lstrip("/")))
    assert reader.instance_id == control.hello().instance_id
    assert reader.read().active.sum() == 2


def test_a_vip_that_is_refused_says_why_and_leaves_the_others(lab: Lab, control: Control) -> None:
    good, bad = vip(lab), vip(lab, port=81, scheduler={"type": "maglev", "table_size": 1000})
    result = control.apply(good, bad)
    errors = {each.id: each.error for each in result.vips}
    assert errors[good["id"]] is None
    refused = errors[bad["id"]]
    assert refused is not None
    assert (refused.code, refused.field) == ("invalid", "table_size")
    assert get(lab, VIP_IPV4) in {b"s1", b"s2"}


def test_what_is_left_out_drains_and_goes(lab: Lab, control: Control) -> None:
    control.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        control.apply()
        kept.get()
        assert [each.key for each in control.dump().vips] == [f"test/{VIP_IPV4}/TCP/80"]
    eventually(lambda: not control.dump().vips, seconds=20)


def test_a_vpp_that_was_killed_is_noticed_and_told_again(lab: Lab, balancer: RunningVpp, control: Control) -> None:
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


def test_a_control_process_that_starts_anew_changes_nothing(lab: Lab, control: Control) -> None:
    control.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        control.stop()
        assert kept.get() == name
        control.start()
        assert {each.id for each in control.dump().vips[0].backends} == {"s1", "s2"}
        assert not any(each.error for each in control.apply(vip(lab)).vips)
        assert kept.get() == name


def test_withdrawn_is_gone_and_can_come_again(lab: Lab, balancer: RunningVpp, control: Control) -> None:
    control.apply(vip(lab))
    control.ask(Method.WITHDRAW)
    assert not list(balancer.shm.iterdir())
    assert not control.dump().vips
    assert control.stats().forwarded == 0
    control.apply(vip(lab))
    assert get(lab, VIP_IPV4) in {b"s1", b"s2"}
