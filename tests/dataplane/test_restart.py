"""A data plane that was killed goes on with its flows, before anybody has told it anything."""

from __future__ import annotations

import pytest

from tests.support.dataplane import VIP_IPV4, VIP_IPV6, vip
from tests.support.subjects import Subject
from tests.support.talk import Talk


@pytest.mark.parametrize("forwarding", ["NAT", "GRE"])
def test_flows_keep_their_servers(subject: Subject, forwarding: str) -> None:
    wanted = []
    for address in (VIP_IPV4, VIP_IPV6):
        built = vip(subject.lab, address, forwarding=forwarding)
        if forwarding == "GRE":
            built["backends"] = [backend | {"port": 80} for backend in built["backends"]]
        wanted.append(built)
    subject.apply(*wanted)
    talks = [Talk(subject, address, source_port=52000 + n) for address in (VIP_IPV4, VIP_IPV6) for n in range(4)]
    for talk in talks:
        talk.client("S")
        if forwarding == "NAT":
            talk.serve("SA")
        talk.client("A")
    names = [talk.server for talk in talks]
    for _ in range(2):
        subject.restart()
        assert [talk.ask() for talk in talks] == names
    assert Talk(subject, source_port=53000).client("S").place in {"s1", "s2"}
