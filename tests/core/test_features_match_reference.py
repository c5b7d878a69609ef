"""Features of the core against the reference in plain Python, on captures made up and real."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from scapy.layers.inet import TCP

from tests.support.captures import (
    MSS,
    OPENINGS,
    PORT,
    STEPS,
    VIPS,
    Conversation,
    begin,
    tcp_captures,
    udp_captures,
)
from tests.support.feature_reference import Seen
from tests.support.feature_rig import Rig

VECTORS = st.sampled_from([1, 2, 8])  # packets that the core gets at a time


def compare(
    capture: list[Seen], vip: str, port: int, protocol: int = 6, *, per_vector: int, one_way: bool = False
) -> None:
    """Runs a capture through core and reference, which must agree."""
    with TemporaryDirectory() as folder:
        rig = Rig(Path(folder) / "frames", vip, port, protocol, one_way=one_way)
        rig.see(capture, per_vector=per_vector)
        rig.assert_equal()


def from_the_first_syn(capture: list[Seen]) -> list[Seen]:
    """Without what connections sent before it: one-way flows that are met in their middle have no start."""
    begun, kept = set(), []
    for seen in capture:
        tcp = seen.packet[TCP]
        if seen.from_client and tcp.flags.S:
            begun.add(tcp.sport)
        if (tcp.sport if seen.from_client else tcp.dport) in begun:
            kept.append(seen)
    return kept


def taken(conversation: Conversation, *, step_us: int = 1000) -> list[Seen]:
    """What was sent, at a steady pace."""
    return [Seen(10**6 + step_us * i, *packet) for i, packet in enumerate(conversation.sent)]


@given(tcp_captures(), VECTORS)
@settings(max_examples=120, deadline=None)
def test_tcp(capture: list[Seen], per_vector: int) -> None:
    compare(capture, VIPS[capture[0].packet.version], PORT, per_vector=per_vector)


@given(tcp_captures(), VECTORS)
@settings(max_examples=120, deadline=None)
def test_tcp_one_way(capture: list[Seen], per_vector: int) -> None:
    compare(from_the_first_syn(capture), VIPS[capture[0].packet.version], PORT, per_vector=per_vector, one_way=True)


@given(udp_captures(5000), VECTORS)
@settings(max_examples=30, deadline=None)
def test_udp_one_way(capture: list[Seen], per_vector: int) -> None:
    compare(capture, VIPS[4], 5000, 17, per_vector=per_vector, one_way=True)


@given(udp_captures(5000), VECTORS)
@settings(max_examples=60, deadline=None)
def test_udp(capture: list[Seen], per_vector: int) -> None:
    compare(capture, VIPS[4], 5000, 17, per_vector=per_vector)


@given(udp_captures(53), VECTORS)
@settings(max_examples=60, deadline=None)
def test_dns(capture: list[Seen], per_vector: int) -> None:
    compare(capture, VIPS[4], 53, 17, per_vector=per_vector)


@pytest.mark.parametrize("one_way", [False, True], ids=["two-way", "one-way"])
@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("step", STEPS)
def test_each_event_once(opening: str, step: str, one_way: bool, tmp_path: Path) -> None:
    conversation = Conversation(40000)
    begin(conversation, opening)
    for name in ("request", step, "answer", "client_ack"):
        conversation.step(name)
    rig = Rig(tmp_path / "frames", VIPS[4], PORT, one_way=one_way)
    for seen in taken(conversation):
        rig.see([seen])
        rig.assert_counters_equal()
    rig.assert_equal()


@pytest.mark.parametrize("server_next", [9000, 2**32 - 1, 2**32 - 250], ids=["plain", "wraps first", "wraps later"])
def test_one_way_answers_are_timed_by_what_the_client_acknowledges(server_next: int, tmp_path: Path) -> None:
    """Three requests, each answered in two segments: the time until the first of them is acknowledged, also where
    sequence numbers and timestamps begin again at 0."""
    conversation = Conversation(40000, client_next=2**32 - 130, server_next=server_next, clock=2**32 - 20)
    conversation.open()
    for _ in range(3):
        for name in ("request", "server_ack", "full_segment", "client_ack", "answer", "client_ack"):
            conversation.step(name)
    rig = Rig(tmp_path / "frames", VIPS[4], PORT, one_way=True)
    rig.see(taken(conversation))
    rig.assert_equal()
    assert rig.samples("pt_gen")[0] == 3
    assert rig.samples("pt_gen")[1] == pytest.approx([0.003] * 3)  # request, server_ack, full_segment, client_ack
    assert rig.samples("pt_1st")[1] == pytest.approx([0.003])
    assert rig.samples("lat_synack")[1] == pytest.approx([0.002])


def test_one_way_an_upload_is_one_question(tmp_path: Path) -> None:
    """Each bare acknowledgement of the server carries a later timestamp, which the next segment echoes: no answer."""
    conversation = Conversation(40000)
    conversation.open()
    for _ in range(10):
        conversation.client("A", MSS - 12)
        conversation.step("server_ack")
    for name in ("request", "answer", "client_ack"):
        conversation.step(name)
    rig = Rig(tmp_path / "frames", VIPS[4], PORT, one_way=True)
    rig.see(taken(conversation))
    rig.assert_equal()
    assert rig.samples("pt_gen")[1] == pytest.approx([0.002])


def test_one_way_flows_met_in_their_middle_have_no_start(tmp_path: Path) -> None:
    conversation = Conversation(40000)
    conversation.open()
    for _ in range(3):
        conversation.step("request")
    rig = Rig(tmp_path / "frames", VIPS[4], PORT, one_way=True)
    rig.see(taken(conversation)[3:])
    assert rig.counters()["n_packet"] == 3
    for channel in ("flow_duration", "fct", "pt_gen", "lat_synack"):
        assert rig.samples(channel)[0] == 0
