"""The core with one backend at a feature level, fed with captures, beside the reference that sees the same packets."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import penstock_core
import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet

from tests.support.feature_reference import Features, Seen

BACKENDS = {4: "10.0.0.1", 6: "fd00:2::1"}
SOURCES = {4: "192.0.2.1", 6: "fd00:9::1"}
BACKEND_PORT = 8080
VIP_ID = 1
INTEGRALS = ("open_us", "active_us")


def counted(frame: penstock_core.Frame) -> dict[str, int]:
    """Return the counters of the first slot."""
    return {name: int(values[0]) for name, values in frame.counters.items()}


def assert_counted(frame: penstock_core.Frame, reference: Features, doubt: float) -> None:
    """Compare counters of the first slot with a reference that knows times up to a doubt in seconds."""
    reference.wait(frame.time_us)
    counters, wanted = counted(frame), reference.counters
    changes = 2 * (wanted["n_flow"] + wanted["n_turn"])  # of gauges
    for name in INTEGRALS:
        assert counters[name] == pytest.approx(wanted[name], abs=changes * doubt * 1e6), name
    exact = counters.keys() - set(INTEGRALS)
    assert {name: counters[name] for name in exact} == {name: wanted[name] for name in exact}


class Rig:
    """One VIP with one backend; `vip` and `port` are those of the captured packets.

    With `one_way` the backend answers clients itself (L3DSR), and packets from servers are left out.
    """

    def __init__(
        self, frames: Path, vip: str, port: int, protocol: int = 6, *, level: int = 2, one_way: bool = False
    ) -> None:
        self.core = penstock_core.Core(flows=4096, seed=bytes(range(32)))
        self.family = ip_address(vip).version
        self.protocol = protocol
        self.core.set_sources([(ip_address(SOURCES[self.family]).packed, 16384, 28671)])
        self.vip, self.port, self.one_way = vip, port, one_way
        self.set_level(level, now_us=1)
        self.core.bind_frames(VIP_ID, str(frames), level, now_us=1)
        self.reader = penstock_core.FrameReader(str(frames))
        self.reference = Features(one_way=one_way, dns=protocol == 17 and port == 53)
        self.now_us = 0

    def set_level(self, level: int, *, now_us: int) -> None:
        """Configure the VIP with this feature level."""
        backend = penstock_core.Backend(1, ip_address(BACKENDS[self.family]).packed, BACKEND_PORT)
        self.core.set_vip(
            VIP_ID,
            [ip_address(self.vip).packed],
            self.port,
            self.protocol,
            [backend],
            feature_level=level,
            forwarding="l3dsr" if self.one_way else "nat",
            dscp=10 if self.one_way else 0,
            now_us=now_us,
        )

    def see(self, capture: Iterable[Seen], *, per_vector: int = 1) -> None:
        """Send a capture through core and reference, in vectors of up to so many packets.

        Packets of one vector have one time, its last packet's. A server's packet waits for the next vector where its
        flow, and with that its NAT port, is only made in this one.
        """
        vector: list[tuple[Seen, Packet]] = []
        for seen in capture:
            if self.one_way and not seen.from_client:
                continue
            if not seen.from_client and any(opens(before) and same_flow(before, seen) for before, _ in vector):
                self._process(vector)
            sent = seen.packet if seen.from_client else self.to_source(seen.packet)
            if sent is None:  # no flow: the core would drop it
                continue
            self.now_us = seen.time_us
            vector.append((seen, sent))
            if len(vector) == per_vector:
                self._process(vector)
        self._process(vector)

    def _process(self, vector: list[tuple[Seen, Packet]]) -> None:
        """Send what has been gathered, and forget it."""
        if not vector:
            return
        time_us = vector[-1][0].time_us
        results = self.core.process([offloaded(sent, seen.segment_size) for seen, sent in vector], time_us)
        for (seen, _), result in zip(vector, results, strict=True):
            if result.verdict == "forward":
                self.reference.see(seen._replace(time_us=time_us))
        vector.clear()

    def to_source(self, packet: Packet) -> Packet | None:
        """A server's packet as it was before translation: to the NAT port of its flow."""
        transport = TCP if TCP in packet else UDP
        for flow in self.core.flows(self.now_us):
            if flow.client_port == packet[transport].dport and ip_address(flow.client) == ip_address(packet.dst):
                sent = packet.copy()
                sent.src, sent.dst = BACKENDS[self.family], SOURCES[self.family]
                sent[transport].sport, sent[transport].dport = BACKEND_PORT, flow.nat_port
                return without_sums(sent)
        return None

    def counters(self) -> dict[str, int]:
        """Counters of the backend in a frame published now: those that packets change."""
        self.core.publish(self.now_us)
        return counted(self.reader.read())

    def samples(self, channel: str) -> tuple[int, np.ndarray]:
        """How many samples of a channel were taken, and those that its reservoir still holds."""
        values, _, valid, seen = self.reader.samples(channel, self.now_us)
        return int(seen[0, 0]), values[0][valid[0]]

    def assert_counters_equal(self) -> None:
        """Every counter is that of the reference."""
        counters = self.counters()
        self.reference.wait(self.now_us)
        differing = {n: (v, self.reference.counters[n]) for n, v in counters.items() if v != self.reference.counters[n]}
        assert not differing, f"core, reference: {differing}"

    def assert_equal(self) -> None:
        """Every counter, every number of samples, and each sample that is left, are those of the reference."""
        self.assert_counters_equal()
        for channel in penstock_core.CHANNELS:
            wanted = np.asarray(self.reference.samples[channel.name], dtype=np.float32)
            seen, found = self.samples(channel.name)
            assert seen == len(wanted), (channel.name, found, wanted)
            for value in found:
                assert np.isclose(wanted, value, rtol=1e-6, atol=0).any(), (channel.name, value, wanted)


def opens(seen: Seen) -> bool:
    """Whether a client's packet may make a flow."""
    return seen.from_client and (UDP in seen.packet or bool(seen.packet[TCP].flags.S))


def same_flow(client: Seen, server: Seen) -> bool:
    """Whether a client's packet and a server's are of one flow."""
    asked, answer = client.packet, server.packet
    return (asked.src, asked.payload.sport) == (answer.dst, answer.payload.dport)


def without_sums(packet: Packet) -> Packet:
    """Lets scapy compute the checksums anew."""
    for layer in (packet, packet.payload):
        if "chksum" in layer.fields:
            del layer.fields["chksum"]
    return packet.__class__(bytes(packet))


def offloaded(packet: Packet, segment_size: int) -> penstock_core.Packet:
    """As an interface with offloads hands it over."""
    data = bytes(packet)
    if not segment_size:
        return penstock_core.Packet(data)
    header = packet.ihl * 4 if packet.version == 4 else 40
    transport = packet[TCP].dataofs * 4 if TCP in packet else 8
    kind = 5 if UDP in packet else 1 if packet.version == 4 else 4
    return penstock_core.Packet(
        data,
        gso_type=kind,
        gso_size=segment_size,
        hdr_len=header + transport,
        needs_csum=True,
        csum_start=header,
        csum_offset=6 if UDP in packet else 16,
    )
