"""Features of VPP against the reference in plain Python: the samples themselves, of streams that come in vectors.

When VPP takes a packet nobody outside knows; it is between its being sent and its coming out. So times may differ from
the reference's by as much as that took, and nothing else may.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import penstock_core
import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet

from tests.support import vpp as support
from tests.support.captures import VIPS, Conversation
from tests.support.dataplane import vip
from tests.support.feature_reference import Features, Seen
from tests.support.feature_rig import assert_counted, without_sums
from tests.support.lab import HTTP_PORT, eventually
from tests.support.lab import lab as build_lab
from tests.support.super_packets import SuperSender
from tests.support.vpp import RunningVpp, VppControl, running_control, running_vpp
from tests.support.wires import Wires, wires

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

CONVERSATIONS = 3
PAUSES = (0.01, 0.05, 0.3)  # seconds after vectors, in turn
ANSWER = 10.0
DSCP = 10

STEPS = (
    *("request", "answer", "client_ack", "long_request", "server_ack", "full_segment", "short_segment", "client_ack"),
    *("client_repeats", "server_repeats", "overlap", "gap", "answer", "keep_alive", "zero_window", "window_opens"),
    *("super_request", "super_answer", "client_ack", "request", "short_super_answer", "client_ack"),
    *("client_fin", "server_fin", "client_ack"),
)


@dataclass
class Bench:
    """VPP between wires that are the test's own, and what drives it."""

    running: RunningVpp
    control: VppControl
    wires: Wires
    senders: dict[str, SuperSender]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """All ends take and give super-packets."""
    if reason := support.missing():
        pytest.skip(reason)
    support.plugin_directory()
    with ExitStack() as stack:
        lab = stack.enter_context(build_lab("pn-vpf", 1, start_servers=False))
        support.bare(lab)
        for namespace in (lab.client, lab.servers[0].namespace):
            namespace.sh("ethtool -K eth0 tx on gso on tso on")
        for device in lab.interfaces:
            lab.balancer.sh(f"ethtool -K {device} tx on gso on tso on")
        running = stack.enter_context(running_vpp(lab, offloads=lab.interfaces))
        control = stack.enter_context(running_control(running))
        held = stack.enter_context(wires(lab))
        senders = {"client": SuperSender(lab.client), "s1": SuperSender(lab.servers[0].namespace)}
        for sender in senders.values():
            stack.callback(sender.close)
        yield Bench(running, control, held, senders)


class Player:
    """Plays captured packets through VPP and shows the reference those that came out, in the same order."""

    def __init__(self, bench: Bench, family: int, *, one_way: bool) -> None:
        self._bench = bench
        lab = bench.running.lab
        server = lab.servers[0]
        self._client = lab.client_ipv4 if family == 4 else lab.client_ipv6
        self._source = lab.balancer_ipv4 if family == 4 else lab.balancer_ipv6
        self._server = server.ipv4 if family == 4 else server.ipv6
        self._nat_ports: dict[int, int] = {}
        self.one_way = one_way
        self.reference = Features(one_way=one_way)
        self.doubt = 0.0  # seconds: the longest that a vector was on its way

    def play(self, vector: list[tuple[Packet, bool, int]]) -> None:
        """Send packets of one direction while VPP stands still, so that it finds them all at once."""
        from_client = vector[0][1]
        sent = [self._as_sent(packet, from_client=from_client) for packet, _, _ in vector]
        sizes = [size for _, _, size in vector]
        process = self._bench.running.process.pid
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.kill(process, signal.SIGSTOP)
        try:
            self._send("client" if from_client else "s1", sent, sizes)
        finally:
            os.kill(process, signal.SIGCONT)
        came = self._bench.wires.hear(len(sent), wait=ANSWER)
        ended = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert len(came) == len(sent), (vector, came)
        self.doubt = max(self.doubt, ended - began)
        for (packet, _, size), out in zip(vector, came, strict=True):
            if from_client:
                self._nat_ports[packet[TCP].sport] = out.packet[TCP].sport
            self.reference.see(Seen(int((began + ended) / 2 * 1e6), packet, from_client, size))

    def _send(self, sender: str, packets: list[Packet], sizes: list[int]) -> None:
        for packet, size in zip(packets, sizes, strict=True):
            if size:
                self._bench.senders[sender].send(packet, size, self._bench.wires.hardware(sender, packet.version))
            else:
                self._bench.wires.send(sender, bytes(packet))

    def _as_sent(self, packet: Packet, *, from_client: bool) -> Packet:
        """A packet between client and VIP as it is on its sender's wire here."""
        sent = packet.copy()
        if from_client:
            sent.src = self._client
        else:
            sent.src, sent.dst = self._server, self._source
            sent[TCP].sport, sent[TCP].dport = HTTP_PORT, self._nat_ports[packet[TCP].dport]
        return without_sums(sent)


def vectors(family: int, *, one_way: bool) -> Iterator[list[tuple[Packet, bool, int]]]:
    """Conversations in step with each other: what goes the same way without an answer in between goes together."""
    talks = [Conversation(40000 + number, family) for number in range(CONVERSATIONS)]
    for talk in talks:
        talk.open()
        for step in STEPS:
            talk.step(step)
    together = itertools.chain.from_iterable(zip(*(talk.sent for talk in talks), strict=True))
    for from_client, packets in itertools.groupby(together, key=lambda sent: sent[1]):
        if from_client or not one_way:
            yield list(packets)


def wanted_vip(bench: Bench, family: int, *, one_way: bool) -> dict[str, Any]:
    lab = bench.running.lab
    server = lab.servers[0]
    address = server.ipv4 if family == 4 else server.ipv6
    backend = {"id": "s1", "address": address, "port": 80 if one_way else HTTP_PORT}
    mode: dict[str, Any] = {"forwarding": "L3DSR", "dscp": DSCP} if one_way else {}
    return vip(lab, VIPS[family], features="full", backends=[backend], **mode)


def longest_vector(bench: Bench) -> float:
    """Packets per call of the load balancer's nodes, of the busier one."""
    found = re.findall(r"^lb-rl-(?:nat-return-)?ip[46] +\S+ +(\d+) +(\d+) ", bench.running.ctl("show runtime"), re.M)
    return max(int(packets) / int(calls) for calls, packets in found if int(calls))


@pytest.mark.parametrize("one_way", [False, True], ids=["two-way", "one-way"])
@pytest.mark.parametrize("family", [4, 6])
def test_samples_of_a_stream_are_those_of_the_reference(bench: Bench, family: int, one_way: bool) -> None:
    bench.control.apply(wanted_vip(bench, family, one_way=one_way))
    status = eventually(lambda: next((each for each in bench.control.dump().vips if each.frames), None))
    reader = penstock_core.FrameReader(str(bench.running.shm / status.frames.lstrip("/")))
    bench.running.ctl("clear runtime")
    player = Player(bench, family, one_way=one_way)
    for vector, pause in zip(vectors(family, one_way=one_way), itertools.cycle(PAUSES), strict=False):
        player.play(vector)
        time.sleep(pause)
    assert longest_vector(bench) > 1.5
    wanted = player.reference.counters
    eventually(lambda: reader.read().counters["packets"][0] == wanted["packets"])
    sequence = reader.read().sequence
    eventually(lambda: reader.read().sequence > sequence + 1)
    assert_counted(reader.read(), player.reference, player.doubt)
    for channel in penstock_core.CHANNELS:
        assert_same_samples(reader, channel, player)
    bench.control.withdraw()


def assert_same_samples(reader: penstock_core.FrameReader, channel: penstock_core.Channel, player: Player) -> None:
    """As many were taken, and those that the reservoir still holds are of the reference's, each of another one."""
    wanted = np.sort(np.asarray(player.reference.samples[channel.name], dtype=np.float32))
    values, _, valid, seen = reader.samples(channel.name)
    assert seen[0, 0] == len(wanted), channel.name
    found = np.sort(values[0][valid[0]])
    doubt = player.doubt if channel.unit == "seconds" else 0.0
    assert len(found) > 0 or len(wanted) == 0, channel.name
    left = iter(wanted)
    for value in found:  # the smallest that will do is the best for those that follow
        least, most = value - doubt - 1e-6 * abs(value), value + doubt + 1e-6 * abs(value)
        match = next((each for each in left if each >= least), None)
        assert match is not None, (channel.name, value, found, wanted)
        assert match <= most, (channel.name, value, found, wanted)
