"""An address that a VIP takes is no backend's any more, however the backends of a VIP came about."""

from __future__ import annotations

import pytest
from penstock_agent.desired import plan

from tests.support.agent_objects import endpoints, service, snapshot, vip

WEB = ("shop", "web")
TAKEN = "10.0.0.2"


def of_service(name="http", **options):
    ports = [{"port": 80, "targetPort": name}]
    return vip(ports=ports, backends={"service": {"name": "web"}}, **options)


def taker():
    return vip("taker", addresses=(TAKEN,), uid="uid-taker")


def web(result):
    (core,) = [core for core in result.vips if core.owner.name == "web"]
    (found,) = [found for found in result.findings if found.owner.name == "web"]
    return [str(backend.address) for backend in core.vip.backends], found


def expect_left_out(result):
    addresses, found = web(result)
    assert addresses == ["10.0.0.1"]
    notes = [note for note in found.notes if note.reason == "EndpointNotAllowed"]
    assert len(notes) == 1
    assert TAKEN in notes[0].message and "loop" in notes[0].message


def test_static_endpoints_and_those_of_a_service():
    expect_left_out(plan(snapshot(vip(), taker()), None))
    slices = {WEB: (endpoints("10.0.0.1", TAKEN),)}
    expect_left_out(plan(snapshot(of_service(), taker(), slices=slices, services={WEB: service()}), None))


def test_endpoints_that_are_kept_for_a_typo():
    slices = {WEB: (endpoints("10.0.0.1", TAKEN, name="renamed"),)}
    before = plan(snapshot(of_service(), slices={WEB: (endpoints("10.0.0.1", TAKEN),)}), None)
    addresses, _ = web(plan(snapshot(of_service(), taker(), slices=slices), before))
    assert addresses == ["10.0.0.1"]


@pytest.mark.parametrize(
    "kept",
    [
        snapshot(vip(annotations={"penstock.dev/paused": "true"}), taker()),
        snapshot(taker(), unreadable={WEB: "spec.ports: is required; add it"}),
    ],
    ids=["paused", "unreadable"],
)
def test_backends_of_a_vip_that_stays_as_it_was(kept):
    before = plan(snapshot(vip()), None)
    assert len(before.vips[0].targets) == 2
    result = plan(kept, before)
    expect_left_out(result)
    (core,) = [core for core in result.vips if core.owner.name == "web"]
    assert [str(target.address) for target in core.targets.values()] == ["10.0.0.1"]
