"""One leader at a time; the next takes over; a node's lease is renewed and removed."""

from __future__ import annotations

import asyncio

import pytest
from penstock_kube import LEASES, KubeClient, LeaderLease, LeaseLostError, NodeLease, NotFound, config

pytestmark = pytest.mark.apiserver


def lease(client: KubeClient, namespace: str, identity: str, duration: float = 2.0) -> LeaderLease:
    return LeaderLease(
        client, "leader", namespace, identity, duration=duration, renew_deadline=duration * 0.75, retry=0.2
    )


async def test_one_leads_until_it_releases(client: KubeClient, namespace: str) -> None:
    first, second = lease(client, namespace, "first", 30.0), lease(client, namespace, "second", 30.0)
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    done, _ = await asyncio.wait([holding, waiting], timeout=1.0)
    assert not done
    assert first.held
    assert not second.held
    assert second.holder == "first"
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    await first.release()
    await asyncio.wait_for(waiting, 5)
    assert second.held
    assert not first.held
    spec = (await client.get(LEASES, "leader", namespace))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 2)


async def test_the_next_takes_over_from_a_dead_leader(client: KubeClient, namespace: str) -> None:
    first, second = lease(client, namespace, "first", 1.0), lease(client, namespace, "second", 1.0)
    await first.acquire()
    await asyncio.wait_for(second.acquire(), 5)
    assert second.held
    with pytest.raises(LeaseLostError, match="is lost"):
        await asyncio.wait_for(first.hold(), 5)
    await first.release()
    assert (await client.get(LEASES, "leader", namespace))["spec"]["holderIdentity"] == "second"


async def test_a_leader_that_reaches_nobody_gives_up(client: KubeClient, namespace: str) -> None:
    leader = lease(client, namespace, "lonely", 1.0)
    await leader.acquire()
    async with KubeClient(config.Connection("http://127.0.0.1:1")) as nowhere:
        leader._client = nowhere
        with pytest.raises(LeaseLostError):
            await asyncio.wait_for(leader.hold(), 5)
    assert not leader.held


async def test_a_missing_namespace_is_waited_for(client: KubeClient) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lease(client, "no-such-namespace", "x").acquire(), 0.6)


def test_times_that_let_two_lead_are_refused(client: KubeClient) -> None:
    with pytest.raises(ValueError, match="two leaders"):
        LeaderLease(client, "x", "y", "z", duration=5, renew_deadline=10)


async def test_a_node_says_that_it_lives(client: KubeClient, namespace: str) -> None:
    node = NodeLease(client, "penstock-a", namespace, "boot-1", field_manager="tests", labels={"x": "y"})
    await node.renew()
    first = await client.get(LEASES, "penstock-a", namespace)
    await node.renew()
    second = await client.get(LEASES, "penstock-a", namespace)
    assert first["spec"]["renewTime"] < second["spec"]["renewTime"]
    assert second["spec"]["holderIdentity"] == "boot-1"
    assert second["metadata"]["labels"] == {"x": "y"}
    await node.release()
    with pytest.raises(NotFound):
        await client.get(LEASES, "penstock-a", namespace)


async def test_a_lease_that_a_chart_made_is_taken_and_stays_the_charts(client: KubeClient, namespace: str) -> None:
    metadata = {"name": "leader", "namespace": namespace, "labels": {"app": "x"}, "annotations": {"release": "y"}}
    await client.create(LEASES, {"metadata": metadata})
    leader = lease(client, namespace, "first")
    await leader.acquire()
    await leader.release()
    found = (await client.get(LEASES, "leader", namespace))["metadata"]
    assert (found["labels"], found["annotations"]) == ({"app": "x"}, {"release": "y"})
