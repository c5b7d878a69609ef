"""What the conformance suite runs on: the core by itself, the embedded data plane, VPP. One interface to all three.

A subject is told VIPs by the control protocol's messages, and given packets one by one; of each it says where it came
out, and as what.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import penstock_core
from penstock_embedded import native
from penstock_embedded.messages import ApplyResult, Error, VipResult
from penstock_embedded.messages import Vip as VipMessage
from penstock_embedded.plan import RemoveVip, SetNode, SetSources, SetVip, plan
from penstock_embedded.state import State
from scapy.packet import Packet

from tests.support.dataplane import ControlClient, RunningDataplane, desired
from tests.support.lab import Lab, Server, eventually
from tests.support.netns import Namespace
from tests.support.vpp import RunningVpp, VppControl
from tests.support.wires import Seen, Wires, parse

SILENCE = 0.3  # seconds in which whatever comes out has come
ANSWER = 3.0

Built = dict[str, Any]  # a VIP, as tests.support.dataplane.vip() makes it


class Subject(ABC):
    """A data plane under test."""

    lab: Lab  # its addresses, and, but for the core, its namespaces

    @abstractmethod
    def apply(self, *vips: Built) -> ApplyResult:
        """Tell the complete set of VIPs."""

    @abstractmethod
    def carry(self, sender: str, packets: list[bytes], *, wait: float) -> list[Seen]:
        """Give it packets and return what comes out, within so many seconds where time passes."""

    @abstractmethod
    def restart(self) -> None:
        """End it as SIGKILL does and have it go on."""

    @abstractmethod
    def statuses(self) -> Mapping[str, int]:
        """Return open flows by backend's name, of all VIPs."""

    @abstractmethod
    def counters(self, vip: Built) -> Mapping[str, int]:
        """Return the sums of a VIP's counters over its backends."""

    @abstractmethod
    def steer(self, vip: Built, weights: Mapping[str, float]) -> None:
        """Set weights by backend's name, as an agent does, and wait until they are in force."""

    def send(self, sender: str, packet: Packet | bytes) -> Seen:
        """Give it one packet, of which one must come out."""
        seen = self.carry(sender, [bytes(packet)], wait=ANSWER)
        assert seen, f"nothing came out of {packet!r}"
        return seen[0]

    def swallow(self, sender: str, packet: Packet | bytes) -> None:
        """Give it one packet, of which nothing may come out."""
        seen = self.carry(sender, [bytes(packet)], wait=SILENCE)
        assert not seen, seen


# ---- The core


class CoreSubject(Subject):
    """The core in this process."""

    def __init__(self, directory: Path) -> None:
        nowhere = Namespace("nowhere")
        servers = tuple(Server(f"s{n}", nowhere, f"10.77.{n}.2", f"fd77:{n}::2") for n in (1, 2))
        self.lab = Lab(nowhere, nowhere, servers)
        self._places = {ip_address(address): "client" for address in (self.lab.client_ipv4, self.lab.client_ipv6)}
        for server in servers:
            self._places |= {ip_address(server.ipv4): server.name, ip_address(server.ipv6): server.name}
        self._directory = directory
        self._starts = 0
        self._state = State()
        self._core = self._start(None)

    def _start(self, arena: bytes | None) -> penstock_core.Core:
        self._starts += 1
        now = penstock_core.boottime_us()
        return penstock_core.Core(flows=4096, now_us=now, seed=bytes(range(32)), arena=arena)

    def apply(self, *vips: Built) -> ApplyResult:
        wanted = desired(self.lab, 1, *vips)
        planned = plan(wanted, self._state)
        refused = dict(planned.refused)
        for change in planned.changes:
            match change:
                case SetNode():
                    self._core.set_node(bytes.fromhex(change.scheduler_key), change.nodes)
                case SetSources():
                    self._core.set_sources([native.source(each) for each in change.sources])
                case SetVip():
                    refused |= self._set(change.vip)
                case RemoveVip():
                    self._core.remove_vip(native.vip_number(change.id), penstock_core.boottime_us())
        good = {vip.id: vip for vip in wanted.vips if vip.id not in refused}
        self._state = State(
            scheduler_key=wanted.scheduler_key, nodes=wanted.nodes, nat_sources=wanted.nat_sources, vips=good
        )
        results = tuple(VipResult(id=vip.id, error=refused.get(vip.id)) for vip in wanted.vips)
        return ApplyResult(generation=1, changed=bool(planned.changes), vips=results, errors=())

    def _set(self, vip: VipMessage) -> dict[str, Error]:
        number, arguments = native.vip_number(vip.id), native.vip_arguments(vip)
        now = penstock_core.boottime_us()
        backends = [
            penstock_core.Backend(
                native.backend_number(each.id),
                native.address_bytes(each.address),
                each.port,
                each.state.value,
                each.weight,
            )
            for each in vip.backends
        ]
        try:
            self._core.set_vip(
                number,
                arguments["addresses"],
                arguments["port"],
                arguments["protocol"],
                backends,
                scheduler=vip.scheduler.type.value,
                client_affinity=arguments["client_affinity"],
                table_size=arguments["table_size"],
                drain_timeout=arguments["drain_ms"],
                timeouts=arguments["timeouts_ms"],
                feature_level=arguments["level"],
                forwarding=vip.forwarding.value.lower(),
                dscp=arguments["dscp"],
                mtu=arguments["tunnel_mtu"],
                drop_unserved=bool(arguments["when_no_backends"]),
                drop_strangers=bool(arguments["when_no_flow"]),
                now_us=now,
            )
        except ValueError as error:
            return {vip.id: Error(code="invalid", message=str(error))}
        path = self._frames(vip.id)
        if not path.exists():
            self._core.bind_frames(number, str(path), arguments["level"], now_us=now)
        return {}

    def _frames(self, identifier: str) -> Path:
        return self._directory / f"{identifier}.{self._starts}.frames"

    def carry(self, sender: str, packets: list[bytes], *, wait: float) -> list[Seen]:
        now = penstock_core.boottime_us()
        self._core.tick(now)
        seen = []
        for out in self._core.process([penstock_core.Packet(data) for data in packets], now):
            if out.verdict in {"forward", "reply"}:
                packet = parse(out.data)
                seen.append(Seen(self._places[ip_address(packet.dst)], packet))
        return seen

    def restart(self) -> None:
        self._core = self._start(self._core.arena())

    def statuses(self) -> Mapping[str, int]:
        names = {native.backend_number(server.name): server.name for server in self.lab.servers}
        rows = [row for number in self._core.vip_ids() for row in self._core.vip_status(number)["backends"]]
        return {names[row["id"]]: row["open_flows"] for row in rows}

    def counters(self, vip: Built) -> Mapping[str, int]:
        self._core.publish(penstock_core.boottime_us())
        return _sums(penstock_core.FrameReader(str(self._frames(vip["id"]))).read())

    def steer(self, vip: Built, weights: Mapping[str, float]) -> None:
        number = native.vip_number(vip["id"])
        rows = self._core.vip_status(number)["backends"]
        by_number = {native.backend_number(name): weight for name, weight in weights.items()}
        slots = 1 + max(row["slot"] for row in rows)
        values, generations = [0.0] * slots, [0] * slots
        for row in rows:
            values[row["slot"]] = by_number[row["id"]]
            generations[row["slot"]] = row["generation"]
        self._core.set_weights(number, values, bytes(generations))


def _sums(frame: penstock_core.Frame) -> Mapping[str, int]:
    return {name: int(values.sum()) for name, values in frame.counters.items()}


# ---- Processes in laboratories


class LabSubject(Subject):
    """A data plane in a laboratory, behind its control socket."""

    def __init__(self, control: ControlClient, wires: Wires, shm: Path) -> None:
        self.lab = control.lab
        self._control = control
        self._wires = wires
        self._shm = shm

    def apply(self, *vips: Built) -> ApplyResult:
        return self._control.try_apply(*vips)

    def carry(self, sender: str, packets: list[bytes], *, wait: float) -> list[Seen]:
        return self._wires.carry(sender, packets, wait=wait)

    def statuses(self) -> Mapping[str, int]:
        return {each.id: each.open_flows for vip in self._control.dump().vips for each in vip.backends}

    def counters(self, vip: Built) -> Mapping[str, int]:
        reader = self._reader(vip)
        before = reader.read().sequence
        # The frame at hand may be older than the last packet.
        return _sums(eventually(lambda: (frame := reader.read()).sequence > before + 1 and frame))

    def _status(self, vip: Built) -> Any:
        return next(each for each in self._control.dump().vips if each.id == vip["id"])

    def _reader(self, vip: Built) -> penstock_core.FrameReader:
        return penstock_core.FrameReader(str(self._shm / self._status(vip).frames.lstrip("/")))

    def steer(self, vip: Built, weights: Mapping[str, float]) -> None:
        status = self._status(vip)
        frame = self._reader(vip).read()
        values = np.zeros(len(frame.generation), dtype=np.float32)
        for backend in status.backends:
            values[backend.slot] = weights[backend.id]
        path = self._shm / status.actions.lstrip("/")
        writer = penstock_core.ActionsWriter(str(path), len(frame.generation))
        writer.write(values, frame.generation, penstock_core.boottime_us())
        eventually(lambda: {each.id: each.weight for each in self._status(vip).backends} == weights)


class EmbeddedSubject(LabSubject):
    """The embedded data plane."""

    def __init__(self, dataplane: RunningDataplane, wires: Wires) -> None:
        super().__init__(dataplane, wires, dataplane.settings.shm_dir)
        self._dataplane = dataplane

    def restart(self) -> None:
        before = self._dataplane.hello().instance_id
        self._dataplane.kill_child()
        eventually(lambda: self._dataplane.answers() and self._dataplane.hello().instance_id != before)


class VppSubject(LabSubject):
    """VPP with our plugin, and the control process beside it."""

    def __init__(self, balancer: RunningVpp, control: VppControl, wires: Wires) -> None:
        super().__init__(control, wires, balancer.shm)
        self._balancer = balancer

    def restart(self) -> None:
        self._balancer.kill()
        self._balancer.restart()
        eventually(self._control.answers)
        # VPP drops the packet that makes it ask for a neighbour, and packets by hand are not sent again.
        ends = [(self.lab.client_ipv4, self.lab.client_ipv6), *((each.ipv4, each.ipv6) for each in self.lab.servers)]
        for address in (each for pair in ends for each in pair):
            eventually(partial(self._balancer.reaches, str(ip_address(address))))


@contextmanager
def withdrawn(subject: LabSubject, control: ControlClient) -> Iterator[Subject]:
    """A subject for one test; what it was told is gone at the end."""
    try:
        yield subject
    finally:
        control.withdraw()
