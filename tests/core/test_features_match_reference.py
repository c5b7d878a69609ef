"""Features of the core against the reference in plain Python, on captures made up and real."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

from tests.support.captures import (
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


def compare(capture: list[Seen], vip: str, port: int, protocol: int = 6) -> None:
    """Runs a capture through core and reference, which must agree."""
    with TemporaryDirectory() as folder:
        rig = Rig(Path(folder) / "frames", vip, port, protocol)
        rig.see(capture)
        rig.assert_equal()


@given(tcp_captures())
@settings(max_examples=120, deadline=None)
def test_tcp(capture: list[Seen]) -> None:
    compare(capture, VIPS[capture[0].packet.version], PORT)


@given(udp_captures(5000))
@settings(max_examples=60, deadline=None)
def test_udp(capture: list[Seen]) -> None:
    compare(capture, VIPS[4], 5000, 17)


@given(udp_captures(53))
@settings(max_examples=60, deadline=None)
def test_dns(capture: list[Seen]) -> None:
    compare(capture, VIPS[4], 53, 17)


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("step", STEPS)
def test_each_event_once(opening: str, step: str, tmp_path: Path) -> None:
    conversation = Conversation(40000)
    begin(conversation, opening)
    for name in ("request", step, "answer", "client_ack"):
        conversation.step(name)
    rig = Rig(tmp_path / "frames", VIPS[4], PORT)
    for i, packet in enumerate(conversation.sent):
        rig.see([Seen(10**6 + 1000 * i, *packet)])
        rig.assert_counters_equal()
    rig.assert_equal()
