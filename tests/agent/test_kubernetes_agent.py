"""Whole agents against a real API server: what they program, report, announce, and how they leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from penstock_agent import shortages
from penstock_agent.main import serve
from penstock_agent.settings import Settings
from penstock_agent.telling import ABOUT, About, Situation
from penstock_api.names import INSTALL_NAMESPACE, NODE_FINALIZER, node_lease_name
from penstock_embedded.messages import Error, Method
from penstock_kube import EVENTS, LEASES, Invalid

from tests.support.agent_cluster import DATAPLANE_NODES, REPORTS, VIPS
from tests.support.recording_dataplane import RecordingDataPlane
from tests.support.waiting import eventually, let_connections_go

pytestmark = pytest.mark.apiserver


class Node:
    """One node's directories, data plane and agent."""

    def __init__(self, path, cluster, name, kubeconfig):
        self.name = name
        self.cluster = cluster
        for part in ("run", "shm", "state"):
            (path / part).mkdir(parents=True)
        self.settings = Settings(
            node_name=cluster.node_name(name),
            dataplane=cluster.dataplane,
            run_dir=path / "run",
            shm_dir=path / "shm",
            state_dir=path / "state",
            kubeconfig=kubeconfig,
            host="127.0.0.1",
            port=0,
            lease_seconds=2,
        )
        self.dataplane = RecordingDataPlane(self.settings.socket)

    @property
    def programmed(self):
        """Backends by core VIP."""
        state = self.dataplane.state
        return {vip.key: [str(b.address) for b in vip.backends] for vip in state.vips} if state else None

    @property
    def announced(self):
        return {str(a) for a in self.dataplane.state.announcement.addresses} if self.dataplane.state else set()

    @contextlib.asynccontextmanager
    async def agent(self):
        found = []
        task = asyncio.create_task(serve(self.settings, ready=lambda agent, port: found.append(agent)))
        try:
            await eventually(lambda: found or task.done())
            if task.done():
                task.result()
            yield found[0]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await let_connections_go()

    async def object(self):
        return await self.cluster.get(DATAPLANE_NODES, self.cluster.object_name(self.name))

    async def report(self):
        found = await self.cluster.get(REPORTS, f"{self.cluster.object_name(self.name)}-0")
        return {entry["name"]: entry for entry in found["report"].get("vips", ())} if found else None


async def soon(look, seconds=30.0):
    """Wait until an awaitable question is answered with yes; returns the answer."""
    async with asyncio.timeout(seconds):
        while not (answer := await look()):  # noqa: ASYNC110 - the API server tells nobody here
            await asyncio.sleep(0.05)
        return answer


@pytest.fixture
def nodes(tmp_path, cluster):
    async def make(name, **options):
        kubeconfig = await cluster.node(name, **options)
        return Node(tmp_path / name, cluster, name, kubeconfig)

    return make


async def test_a_vip_is_programmed_and_reported(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1", "10.0.0.2")
    await cluster.vip(policyName="fast")
    await cluster.policy("fast", heuristic="little")
    key = f"{cluster.namespace}/web:80/TCP/IPv4"
    async with node.dataplane, node.agent():
        await eventually(lambda: node.programmed == {key: ["10.0.0.1", "10.0.0.2"]})
        await cluster.slice("web", "10.0.0.2", "10.0.0.3")
        await eventually(lambda: node.programmed == {key: ["10.0.0.2", "10.0.0.3"]})

        async def reported():
            entries = await node.report()
            return entries if entries and entries.get("web", {}).get("generation") else None

        entry = (await soon(reported))["web"]
        assert (entry["ready"], entry["total"], entry["policy"], entry["mode"]) == (2, 2, "little", "Active")
        assert entry["error"] == ""

        async def ready():
            found = await node.object()
            conditions = found.get("status", {}).get("conditions", ())
            return found if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions) else None

        found = await soon(ready)
        assert found["metadata"]["finalizers"] == [NODE_FINALIZER]
        assert found["status"]["instanceId"] == node.dataplane.instance_id
        assert found["status"]["vips"] == {"programmed": 1, "failing": 0}
        assert found["status"]["summary"]["vips"] == "1/1"


async def test_what_is_wrong_with_a_vip_is_reported(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1", "203.0.113.10")
    await cluster.vip(policyName="gone")
    await cluster.vip("younger", addresses=("203.0.113.10",))  # the later of two with one address and port
    async with node.dataplane, node.agent():

        async def failing():
            found = await node.object()
            return found.get("status", {}).get("failingVIPs")

        (failing_vip,) = await soon(failing)
        assert "203.0.113.10:80/TCP is held by another VIP" in failing_vip["error"]
        entry = (await soon(node.report))["web"]
        assert "no RLPolicy" in entry["warning"]
        assert "endpoint 203.0.113.10: is the address of a VIP" in entry["warning"]
        assert {found["reason"] for found in entry["findings"]} == {"Policy", "EndpointNotAllowed"}
        assert list(node.programmed.values()) == [["10.0.0.1"]]


ODD_SLICES: list[dict[str, Any]] = [
    *({"ports": [{"name": "http", "port": port, "protocol": "TCP"}]} for port in (70000, 65536, -1, 0)),
    {"ports": [{"name": "http", "protocol": "TCP"}]},
    {"ports": None},
    {"ports": [{"name": "http", "port": 8080, "protocol": "SCTP"}]},
    {"endpoints": [{"addresses": ["10.0.0.9"], "targetRef": {"kind": "Pod", "name": "p", "uid": "u" * 200}}]},
    {"endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": None, "serving": None}}]},
    {"endpoints": None},
    {"addressType": "FQDN", "endpoints": [{"addresses": ["server.example"]}]},
    {"addressType": "IPv6", "endpoints": [{"addresses": ["2001:db8::9"]}]},
    {"endpoints": [{"addresses": ["10.0.0.9"]}, {"addresses": ["010.0.0.9"]}]},
    {"endpoints": [{"addresses": ["10.0.0.9"], "hostname": "a" * 63, "zone": "z" * 253}]},
]


async def test_odd_slices_cost_nobody_else_anything(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    accepted = 0
    async with node.dataplane:
        async with node.agent():
            await eventually(lambda: node.programmed and list(node.programmed.values()) == [["10.0.0.1"]])
            for index, odd in enumerate(ODD_SLICES):
                with contextlib.suppress(Invalid):
                    await cluster.slice("web", "10.0.0.9", name=f"odd-{index}", **odd)
                    accepted += 1
            await cluster.slice("web", "10.0.0.1", "10.0.0.2")
            await eventually(lambda: "10.0.0.2" in next(iter(node.programmed.values())))

            async def named():
                entry = (await node.report() or {}).get("web", {})
                return any("ports[0].port: 70000" in found["message"] for found in entry.get("findings", ()))

            await soon(named)
            assert (await node.report())["web"]["error"] == ""
        assert accepted >= len(ODD_SLICES) - 2
        # The same at a start, without what was known before.
        (node.settings.state_dir / "plan.json").unlink()
        await cluster.slice("web", "10.0.0.3")
        async with node.agent():
            await eventually(lambda: "10.0.0.3" in next(iter(node.programmed.values())))


async def test_a_typo_in_a_live_vip_keeps_its_backends_also_after_a_restart(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    key = f"{cluster.namespace}/web:80/TCP/IPv4"
    async with node.dataplane:
        async with node.agent():
            await eventually(lambda: node.programmed == {key: ["10.0.0.1"]})
            await cluster.vip(service="wbe")

            async def kept():
                (port,) = (await node.report() or {}).get("web", {}).get("ports") or [{}]
                return port if port.get("kept") else None

            port = await soon(kept)
            assert (port["ready"], port["total"], port["reason"]) == (1, 1, "ServiceNotFound")
            assert "spec.backends.service.name" in port["message"]
            await cluster.slice("web", "10.0.0.1", "10.0.0.2")
            await eventually(lambda: node.programmed == {key: ["10.0.0.1", "10.0.0.2"]})
        async with node.agent():
            await cluster.slice("web", "10.0.0.2", "10.0.0.3")
            await eventually(lambda: node.programmed == {key: ["10.0.0.2", "10.0.0.3"]})
            await cluster.slice("other", "10.0.0.7")
            await cluster.vip(service="other")
            await eventually(lambda: node.programmed == {key: ["10.0.0.7"]})


def condition(found, type_="Ready"):
    """Status and reason of a condition of an object."""
    conditions = found.get("status", {}).get("conditions", ())
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == type_), None)


async def test_ports_that_run_out_are_a_condition_until_they_suffice_for_a_while(cluster, nodes, monkeypatch):
    monkeypatch.setattr(shortages, "LASTING_SECONDS", 3.0)
    node = await nodes("a")

    async def overloaded():
        return condition(await node.object(), "Overloaded")

    async with node.dataplane, node.agent():

        async def has_room():
            return await overloaded() == ("False", "Sufficient")

        async def has_none():
            return await overloaded() == ("True", "NATPortsExhausted")

        await soon(has_room)
        node.dataplane.dropped["no_nat_port"] = 1
        await soon(has_none)
        assert condition(await node.object()) == ("True", "Ready")
        await soon(has_room)


async def test_a_lost_data_plane_makes_the_node_unready(cluster, nodes):
    node = await nodes("a")

    async def is_unreachable():
        return condition(await node.object()) == ("False", "DataPlaneUnreachable")

    async def is_ready():
        return condition(await node.object()) == ("True", "Ready")

    async with node.agent():
        await soon(is_unreachable)
        async with node.dataplane:
            await soon(is_ready)


async def test_users_are_told_by_events(cluster, nodes, monkeypatch):
    monkeypatch.setitem(ABOUT, Situation.DATAPLANE_UNREACHABLE, About(0.0, "DataPlaneReachable", "it is back"))
    node = await nodes("a")
    await cluster.slice("web", "192.0.2.1")  # leads nowhere: every check fails
    await cluster.vip(healthCheck={"type": "TCP", "intervalSeconds": 1, "timeoutSeconds": 1, "unhealthyThreshold": 1})

    async def told(namespace, name, reason):
        found, _ = await cluster.client.list(EVENTS, namespace)
        return [event for event in found if (event["regarding"]["name"], event["reason"]) == (name, reason)]

    async with node.agent():
        await soon(lambda: told("default", cluster.object_name("a"), "DataPlaneUnreachable"))
        async with node.dataplane:
            await soon(lambda: told("default", cluster.object_name("a"), "DataPlaneReachable"))
            (event,) = await soon(lambda: told(cluster.namespace, "web", "AllBackendsFailing"), 15)
    assert event["type"] == "Warning"
    assert event["regarding"]["kind"] == "LoadBalancerVIP"
    assert event["reportingInstance"] == cluster.node_name("a")
    assert event["note"].startswith(f"node {cluster.node_name('a')}: all backends of port 80/TCP fail")


async def test_leaving_withdraws_before_the_object_goes(cluster, nodes):
    node = await nodes("a", l2=True)
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    name = cluster.object_name("a")
    async with node.dataplane, node.agent() as agent:
        await eventually(lambda: node.programmed and agent.link.settled)
        await soon(lambda: cluster.get(LEASES, node_lease_name(name), INSTALL_NAMESPACE))
        await soon(node.report)
        await cluster.client.delete(DATAPLANE_NODES, name)

        async def gone():
            return await node.object() is None

        await soon(gone)
        assert node.dataplane.asked(Method.WITHDRAW)
        assert node.dataplane.state is None
        assert await node.report() is None
        assert await cluster.get(LEASES, node_lease_name(name), INSTALL_NAMESPACE) is None
        await asyncio.sleep(1.2)
        assert node.dataplane.state is None
        assert await node.report() is None
        assert not (node.settings.state_dir / "plan.json").exists()


async def test_a_node_whose_data_plane_never_came_can_be_left(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    async with node.agent():

        async def followed():
            return NODE_FINALIZER in (await node.object())["metadata"].get("finalizers", ())

        async def gone():
            return await node.object() is None

        await soon(followed)
        await cluster.client.delete(DATAPLANE_NODES, cluster.object_name("a"))
        await soon(gone)


async def test_without_api_server_the_last_state_is_used(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    async with node.dataplane:
        async with node.agent() as agent:
            await eventually(lambda: node.programmed and agent.link.settled)
        cluster.plane.stop_apiserver(grace=0)
        try:
            await node.dataplane.restart()
            async with node.agent() as agent:
                # Neither the agent nor the data plane remembers anything but what is on disk.
                await eventually(lambda: node.programmed and agent.link.settled)
                assert list(node.programmed.values()) == [["10.0.0.1"]]
                await asyncio.to_thread(cluster.plane.start_apiserver)
                await cluster.slice("web", "10.0.0.2")
                await eventually(lambda: list(node.programmed.values()) == [["10.0.0.2"]])
        finally:
            if not cluster.plane.ready():
                cluster.plane.start_apiserver()


ADDRESSES = tuple(f"203.0.113.{number}" for number in range(20, 28))


@pytest.mark.alone
async def test_nodes_share_addresses_and_take_over_from_a_lost_one(cluster, nodes):
    # The nodes' own addresses lead nowhere: what does not answer is lost.
    a, b = await nodes("a", l2=True, nodes=2), await nodes("b", l2=True, nodes=2)
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip(addresses=ADDRESSES)
    async with a.dataplane, b.dataplane, a.agent() as agent_a:
        async with b.agent() as agent_b:
            await eventually(lambda: a.announced and b.announced)
            await eventually(lambda: a.announced | b.announced == set(ADDRESSES) and not a.announced & b.announced)
            assert agent_a.link.settled or agent_b.link.settled
        started = asyncio.get_running_loop().time()
        await eventually(lambda: a.announced == set(ADDRESSES))
        assert asyncio.get_running_loop().time() - started < 5
        async with b.agent():
            await eventually(lambda: b.announced and not a.announced & b.announced)


async def test_a_node_whose_machine_answers_keeps_its_addresses_for_a_while(cluster, nodes):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        here = probe.getsockname()[0]
    a, b = await nodes("a", l2=True, nodes=2, address=here), await nodes("b", l2=True, nodes=2, address=here)
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip(addresses=ADDRESSES)
    async with a.dataplane, b.dataplane, a.agent():
        async with b.agent():
            await eventually(lambda: a.announced and b.announced and not a.announced & b.announced)
        share = a.announced
        await asyncio.sleep(3.5)
        assert a.announced == share


async def test_an_address_heard_from_another_node_is_announced_again_if_it_is_ours(cluster, nodes):
    a = await nodes("a", l2=True)
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip(addresses=ADDRESSES[:1])
    async with a.dataplane, a.agent() as agent:
        await eventually(lambda: a.announced == {ADDRESSES[0]} and agent.link.settled)
        before = len(a.dataplane.applied)
        a.dataplane.lost_announcements = (ADDRESSES[0],)
        await eventually(lambda: len(a.dataplane.applied) > before)
        assert a.announced == {ADDRESSES[0]}


async def test_deleted_vips_leave_and_their_reports_with_them(cluster, nodes):
    node = await nodes("a")
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    async with node.dataplane, node.agent():
        await eventually(lambda: node.programmed)
        await soon(node.report)
        await cluster.client.delete(VIPS, "web", cluster.namespace)
        await eventually(lambda: node.programmed == {})

        async def empty():
            return await node.report() == {}

        await soon(empty)


async def test_a_node_without_data_plane_leaves_its_addresses_to_others(cluster, nodes, monkeypatch):
    monkeypatch.setattr("penstock_agent.announcing.DATAPLANE_SECONDS", 1.0)
    a, b = await nodes("a", l2=True, nodes=2), await nodes("b", l2=True, nodes=2)
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip(addresses=ADDRESSES)
    async with a.dataplane, b.dataplane, a.agent(), b.agent():
        await eventually(lambda: a.announced and b.announced and not a.announced & b.announced)
        await b.dataplane.stop()
        await eventually(lambda: a.announced == set(ADDRESSES))
        await b.dataplane.restart()
        await eventually(lambda: b.announced and not a.announced & b.announced)


async def test_a_draining_node_leaves_its_addresses_to_others_and_reports_it(cluster, nodes):
    a, b = await nodes("a", l2=True, nodes=2), await nodes("b", l2=True, nodes=2)
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip(addresses=ADDRESSES)

    async def drain(name, draining):
        patch = {"spec": {"draining": draining}}
        await cluster.client.patch(DATAPLANE_NODES, cluster.object_name(name), patch)

    async def reported(node, addresses):
        entry = (await node.report() or {}).get("web")
        return entry is not None and set(entry.get("announces", ())) == set(addresses)

    async with a.dataplane, b.dataplane, a.agent(), b.agent():
        await eventually(lambda: a.announced and b.announced and not a.announced & b.announced)
        share = a.announced
        await soon(lambda: reported(a, share))
        a.dataplane.refuse_all = Error(code="busy", message="not now")
        await drain("a", True)
        await eventually(lambda: b.announced == set(ADDRESSES))
        await soon(lambda: reported(b, ADDRESSES))
        assert await reported(a, share)  # its data plane still announces
        a.dataplane.refuse_all = None
        await eventually(lambda: not a.announced)
        await soon(lambda: reported(a, ()))
        await drain("b", True)  # nobody else is left
        await eventually(lambda: a.announced == share)
        await drain("a", False)
        await eventually(lambda: a.announced == set(ADDRESSES))


async def test_an_agent_without_announcements_renews_its_lease_and_takes_back_that_it_was_silent(cluster, nodes):
    node = await nodes("a")
    name = cluster.object_name("a")
    async with node.dataplane, node.agent():
        await soon(lambda: cluster.get(LEASES, node_lease_name(name), INSTALL_NAMESPACE))

        async def ready(reason):
            found = await cluster.get(DATAPLANE_NODES, name)
            conditions = {c["type"]: c["reason"] for c in (found.get("status") or {}).get("conditions", ())}
            return conditions.get("Ready") == reason

        await soon(lambda: ready("Ready"))
        silent = {
            "type": "Ready",
            "status": "False",
            "reason": "AgentSilent",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        body = {"metadata": {"name": name}, "status": {"conditions": [silent]}}
        await cluster.client.apply(DATAPLANE_NODES, body, field_manager="penstock-operator", subresource="status")
        await soon(lambda: ready("Ready"))
