"""Which server a flow gets and keeps, on every data plane the same."""

from __future__ import annotations

import time
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet, Raw

from tests.support.dataplane import VIP_IPV4, vip
from tests.support.lab import eventually
from tests.support.subjects import Subject
from tests.support.talk import Talk, addressed


def with_backends(subject: Subject, changes: dict[str, dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A VIP over both servers, some of which differ."""
    built = vip(subject.lab, **fields)
    built["backends"] = [backend | changes.get(backend["id"], {}) for backend in built["backends"]]
    return built


def new_servers(subject: Subject, count: int, first_port: int) -> set[str]:
    """The servers that so many new flows get."""
    return {Talk(subject, source_port=first_port + number).client("S").place for number in range(count)}


def datagram(subject: Subject) -> Packet:
    return addressed(subject.lab.client_ipv4, VIP_IPV4) / UDP(sport=40000, dport=5000) / Raw(b"datagram")


def test_new_flows_use_all_servers_and_each_stays(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    talks = [Talk(subject, source_port=41000 + number) for number in range(8)]
    names = [talk.open() for talk in talks]
    assert set(names) == {"s1", "s2"}
    for _ in range(2):
        assert [talk.ask() for talk in talks] == names


def test_a_clients_flows_share_a_server_with_client_affinity(subject: Subject) -> None:
    subject.apply(vip(subject.lab, client_affinity=True, scheduler={"type": "maglev"}))
    assert len(new_servers(subject, 8, 42000)) == 1


@pytest.mark.parametrize("change", [{"state": "draining"}, {"state": "unready"}, {"weight": 0}])
def test_a_draining_server_keeps_its_flows_and_gets_no_new_ones(subject: Subject, change: dict[str, Any]) -> None:
    subject.apply(vip(subject.lab))
    talk = Talk(subject)
    drained = talk.open()
    subject.apply(with_backends(subject, {drained: change}))
    assert drained not in new_servers(subject, 8, 43000)
    assert talk.ask() == drained


@pytest.mark.parametrize("change", [{"state": "unready"}, {"weight": 0}])
def test_a_server_that_takes_no_new_flows_keeps_the_open_ones_without_end(
    subject: Subject, change: dict[str, Any]
) -> None:
    subject.apply(vip(subject.lab, drain_timeout=0))
    talk = Talk(subject)
    kept = talk.open()
    subject.apply(with_backends(subject, {kept: change}, drain_timeout=0))
    time.sleep(1.5)  # data planes look at drains once a second
    assert talk.ask() == kept


def test_a_removed_server_keeps_its_flows_until_they_end(subject: Subject) -> None:
    built = vip(subject.lab)
    subject.apply(built)
    talk = Talk(subject)
    removed = talk.open()
    subject.apply(built | {"backends": [each for each in built["backends"] if each["id"] != removed]})
    assert talk.ask() == removed
    assert removed not in new_servers(subject, 8, 44000)


def test_a_removed_servers_client_port_begins_anew_elsewhere(subject: Subject) -> None:
    built = vip(subject.lab)
    subject.apply(built)
    removed = Talk(subject).open()
    subject.apply(built | {"backends": [each for each in built["backends"] if each["id"] != removed]})
    assert Talk(subject, sequence=900_000).open() != removed


def test_datagrams_leave_a_removed_server_at_once(subject: Subject) -> None:
    built = vip(subject.lab, protocol="UDP", port=5000)
    subject.apply(built)
    removed = subject.send("client", datagram(subject)).place
    subject.apply(built | {"backends": [each for each in built["backends"] if each["id"] != removed]})
    assert subject.send("client", datagram(subject)).place not in (removed, "client")


def test_a_server_with_another_id_keeps_its_flows(subject: Subject) -> None:
    built = vip(subject.lab, drain_timeout=0)
    subject.apply(built)
    talk = Talk(subject)
    server = talk.open()
    subject.apply(built | {"backends": [each | {"id": "new-" + each["id"]} for each in built["backends"]]})
    time.sleep(1.5)
    assert talk.ask() == server


def test_a_failed_servers_clients_learn_of_it(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    talk = Talk(subject)
    failed = talk.open()
    subject.apply(with_backends(subject, {failed: {"state": "failed"}}))
    seen = talk.client("PA", b"question")
    assert seen.place == "client"
    assert "R" in seen.packet[TCP].flags
    assert failed not in new_servers(subject, 4, 45000)


@pytest.mark.parametrize("scheduler", ["maglev", "alias", "sed"])
def test_configured_weights_share_new_flows_out(subject: Subject, scheduler: str) -> None:
    chosen = {"type": scheduler}
    subject.apply(with_backends(subject, {"s1": {"weight": 0}}, scheduler=chosen))
    assert new_servers(subject, 6, 46000) == {"s2"}
    subject.apply(with_backends(subject, {"s2": {"weight": 0}}, scheduler=chosen))
    assert new_servers(subject, 6, 46100) == {"s1"}


def test_an_agents_weights_steer_new_flows_only(subject: Subject) -> None:
    built = vip(subject.lab, scheduler={"type": "sed"})
    subject.apply(built)
    talks = [Talk(subject, source_port=47000 + number) for number in range(4)]
    names = [talk.open() for talk in talks]
    for only, other in (("s1", "s2"), ("s2", "s1")):
        subject.steer(built, {only: 1.0, other: 0.0})
        assert new_servers(subject, 5, 47100 + 100 * ord(only[1])) == {only}
        assert [talk.ask() for talk in talks] == names


def test_flows_are_counted_while_they_are_open(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    talks = [Talk(subject, source_port=49000 + number) for number in range(4)]
    for talk in talks:
        talk.open()
    assert sum(subject.statuses().values()) == 4
    for talk in talks:
        talk.close()
    eventually(lambda: sum(subject.statuses().values()) == 0)


def test_what_is_no_longer_wanted_drains_and_goes(subject: Subject) -> None:
    built = vip(subject.lab, drain_timeout=60)
    subject.apply(built)
    talk = Talk(subject)
    server = talk.open()
    subject.apply()
    assert talk.ask() == server
    assert "R" in Talk(subject, source_port=50001).client("S").packet[TCP].flags
