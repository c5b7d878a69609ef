"""A whole agent with source `files`: control socket, shared memory, HTTP; restarts of either side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from ipaddress import ip_address
from typing import Any

import httpx
import penstock_core
import pytest
from penstock_agent import desired
from penstock_agent.main import serve
from penstock_agent.settings import Settings
from penstock_agent.state import AgentState
from penstock_embedded.messages import BackendState
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from tests.support.recording_dataplane import RecordingDataPlane
from tests.support.waiting import StreamServer, eventually, running

VIP = """\
apiVersion: penstock.dev/v1alpha1
kind: LoadBalancerVIP
metadata: {{name: web}}
spec:
  addresses: [203.0.113.10]
  ports: [{{port: 80}}]
  policyName: fast
  backends: {{endpoints: [{endpoints}]}}
  healthCheck: {{type: TCP, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}}
---
apiVersion: penstock.dev/v1alpha1
kind: RLPolicy
metadata: {{name: fast}}
spec: {{heuristic: inverse-duration, mode: "{mode}", guardrails: {{maxChangePerStep: 1.0}}}}
"""


class Backend(StreamServer):
    """Something to connect to."""

    port = 0

    async def listen(self):
        server = await asyncio.start_server(self.accept, self.address, self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def __init__(self, address):
        super().__init__()
        self.address = address

    async def handle(self, reader, writer):
        await reader.read()


@pytest.fixture
def local_address():
    """An address of this machine that is not loopback, which backends may not be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


class Rig:
    """Directories, data plane and frames for one agent."""

    def __init__(self, path):
        self.path = path
        for name in ("run", "shm", "state", "files"):
            (path / name).mkdir()
        self.settings = Settings(
            source="files",
            files=path / "files",
            run_dir=path / "run",
            shm_dir=path / "shm",
            state_dir=path / "state",
            node_addresses=(ip_address("192.0.2.1"),),
            host="127.0.0.1",
            port=0,
        )
        self.dataplane = RecordingDataPlane(self.settings.socket)
        self.frames = {}
        self.level = "basic"

    def write(self, endpoints, mode="Active"):
        listed = ", ".join(f"{{address: {address}, port: {port}}}" for address, port in endpoints)
        (self.path / "files" / "web.yaml").write_text(VIP.format(endpoints=listed, mode=mode))

    def publish(self, *fct):
        """Publish frames with these completion times, as the data plane does all the time."""
        assert self.dataplane.state is not None
        now = penstock_core.boottime_us()
        for vip in self.dataplane.state.vips:
            if vip.id not in self.frames:
                path = self.path / "shm" / f"penstock.{vip.id}.frames"
                path.unlink(missing_ok=True)
                slots = self.dataplane.slots
                writer = penstock_core.FrameWriter(str(path), slots, feature_level=self.level, time_us=now)
                for slot, seconds in enumerate(fct):
                    writer.open_slot(slot, 1)
                    for counter, amount in {"n_flow": 5, "n_turn": 7, "n_active": 2}.items():
                        writer.count(slot, counter, amount)
                    for _ in range(50):
                        writer.sample(slot, "fct", seconds, now)
                self.frames[vip.id] = writer
            self.frames[vip.id].publish(now)

    async def publishing(self, *fct):
        while True:
            if self.dataplane.state is not None:
                self.publish(*fct)
            await asyncio.sleep(0.1)

    def weights(self):
        files = list((self.path / "shm").glob("*.actions"))
        if not files:
            return None
        return penstock_core.ActionsReader(str(files[0])).read().weights[:2].tolist()

    @contextlib.asynccontextmanager
    async def agent(self):
        found: dict[str, Any] = {}
        task = asyncio.create_task(serve(self.settings, ready=lambda agent, port: found.update(agent=agent, port=port)))
        try:
            await eventually(lambda: found or task.done())
            if task.done():
                task.result()
            found["agent"].url = f"http://127.0.0.1:{found['port']}"
            yield found["agent"]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


async def get(agent, path):
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{agent.url}{path}")


async def test_files_to_weights(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one, Backend(local_address) as two:
        rig.write([(local_address, one.port), (local_address, two.port)])
        # Slots go by id, ids by port: the lower port has slot 0.
        async with rig.agent(), running(rig.publishing(0.4, 0.1)):
            await eventually(lambda: rig.weights() == pytest.approx([0.5, 2.0]))
            assert len(rig.dataplane.applied) == 1


async def test_a_restarted_agent_changes_nothing(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one:
        rig.write([(local_address, one.port)])
        async with rig.agent() as agent:
            await eventually(lambda: agent.link.settled)
        async with rig.agent() as agent:
            await eventually(lambda: agent.link.settled and agent.source.snapshot is not None)
            await asyncio.sleep(0.2)
            assert len(rig.dataplane.applied) == 1


async def test_a_restarted_data_plane_gets_everything_again(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one:
        rig.write([(local_address, one.port)])
        async with rig.agent() as agent:
            await eventually(lambda: agent.link.settled)
            await rig.dataplane.restart()
            await eventually(lambda: len(rig.dataplane.applied) == 2 and agent.link.settled)


async def test_the_last_good_state_is_used_at_a_start_with_bad_files(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one:
        rig.write([(local_address, one.port)])
        async with rig.agent() as agent:
            await eventually(lambda: agent.link.settled)
        (rig.path / "files" / "web.yaml").write_text("kind: [")
        await rig.dataplane.restart()
        async with rig.agent() as agent:
            await eventually(lambda: agent.link.settled)
            assert "web.yaml" in agent.source.error
            assert [vip.key for vip in rig.dataplane.state.vips] == ["default/web:80/TCP/IPv4"]


async def test_failed_backends_are_cut_and_stay_cut_over_a_restart(rig, local_address):
    def states():
        return [b.state for b in rig.dataplane.state.vips[0].backends] if rig.dataplane.state else []

    async with rig.dataplane, Backend(local_address) as one, Backend(local_address) as two:
        rig.write([(local_address, one.port), (local_address, two.port)])
        lower = min((one, two), key=lambda backend: backend.port)
        await lower.stop()
        async with rig.agent() as agent:
            await eventually(lambda: states() == [BackendState.FAILED, BackendState.ACTIVE] and agent.link.settled)
        before = len(rig.dataplane.applied)
        async with rig.agent() as agent:
            await eventually(lambda: agent.link.settled and agent.checker.checks >= 2)
            assert states() == [BackendState.FAILED, BackendState.ACTIVE]
            assert len(rig.dataplane.applied) == before
            await lower.start()
            await eventually(lambda: states() == [BackendState.ACTIVE, BackendState.ACTIVE])


async def test_all_failing_is_said(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one:
        rig.write([(local_address, one.port)])
        await one.stop()
        async with rig.agent() as agent:
            await eventually(lambda: agent.outcome is not None and agent.outcome.fail_open)
            state = AgentState.model_validate_json((await get(agent, "/state")).content)
            assert state.vips[0].fail_open
            assert [(b.healthy, b.state) for b in state.vips[0].backends] == [(False, "active")]
            assert state.vips[0].backends[0].health_error == "Connection refused"


def assert_metrics_are_those_of_the_state(text, vip):
    found: dict[str, dict[tuple[str, str | None], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "backend" in sample.labels:
                labels = sample.labels
                found.setdefault(labels["backend"], {})[sample.name, labels.get("quantile")] = sample.value
    expected = {}
    for backend in vip.backends:
        values = {
            ("open_flows", None): backend.open_flows,
            ("weight", None): backend.weight,
            ("policy_weight", None): pytest.approx(backend.wanted),
            ("healthy", None): backend.healthy,
            ("flows_total", None): backend.flows,
            ("packets_total", None): backend.packets,
            ("bytes_total", None): backend.bytes,
            ("fct_seconds", "0.5"): pytest.approx(backend.fct.p50),
            ("fct_seconds", "0.9"): pytest.approx(backend.fct.p90),
        }
        name = f"{backend.address}:{backend.port}"
        expected[name] = {(f"penstock_backend_{key}", quantile): value for (key, quantile), value in values.items()}
    assert found == expected


async def test_state_and_metrics_say_what_happens(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one, Backend(local_address) as two:
        rig.write([(local_address, one.port), (local_address, two.port)], mode="Shadow")
        async with rig.agent() as agent, running(rig.publishing(0.4, 0.1)):
            await eventually(lambda: rig.weights() == [1.0, 1.0])
            await eventually(lambda: all(s.wanted is not None for s in agent.loop.vips.values()))
            answer = await get(agent, "/state")
            assert answer.headers["content-type"] == "application/json"
            state = AgentState.model_validate_json(answer.content)
            vip = state.vips[0]
            assert (vip.policy, vip.mode, vip.fallback_reason) == ("inverse-duration", "Shadow", "shadow")
            assert [b.slot for b in vip.backends] == [0, 1]
            assert [b.flows for b in vip.backends] == [5, 5]
            assert vip.backends[0].wanted == pytest.approx(0.5)
            assert vip.backends[0].weight == 1.0
            fct = vip.backends[1].fct
            assert fct is not None
            assert fct.p90 == pytest.approx(0.1)
            assert vip.backends[1].flow_duration is None
            recent = AgentState.model_validate_json((await get(agent, "/state?within=3600")).content)
            recent_fct = recent.vips[0].backends[1].fct
            assert recent_fct is not None
            assert recent_fct.p90 == pytest.approx(0.1)
            none = AgentState.model_validate_json((await get(agent, "/state?within=0")).content)
            assert none.vips[0].backends[1].fct is None
            assert (await get(agent, "/state?within=soon")).text == "within: 'soon' is not a number of seconds\n"
            text = (await get(agent, "/metrics")).text
            assert_metrics_are_those_of_the_state(text, vip)
            labels = 'namespace="default",port="80",protocol="TCP",vip="web"'
            lower = min(one.port, two.port)
            assert (
                f'penstock_backend_flows_total{{backend="{local_address}:{lower}",family="IPv4",{labels}}} 5\n' in text
            )
            assert 'quantile="0.9"' in text
            assert "penstock_agent_settled 1.0" in text
            assert 'penstock_agent_watch_age_seconds{watch="files"}' in text
            assert (await get(agent, "/healthz")).text == "ok\n"


async def test_requests_have_metrics_at_level_full(rig, local_address):
    rig.level = "full"
    async with rig.dataplane, Backend(local_address) as one, rig.agent() as agent:
        rig.write([(local_address, one.port)])
        await eventually(lambda: rig.dataplane.state is not None)
        publishing = asyncio.create_task(rig.publishing(0.1))
        for name, value in {"requests_total": 7, "active_flows": 2}.items():
            sample = f'penstock_backend_{name}{{backend="{local_address}:{one.port}",family="IPv4",'
            sample += f'namespace="default",port="80",protocol="TCP",vip="web"}} {value}\n'
            async with asyncio.timeout(20):
                while sample not in (await get(agent, "/metrics")).text:  # noqa: ASYNC110 - another program's
                    await asyncio.sleep(0.1)
        publishing.cancel()


async def test_a_stuck_loop_shows(rig):
    rig.write([("10.0.0.1", 80)])
    async with rig.dataplane, rig.agent() as agent:
        agent.loop.progress_at -= 3600
        # The loop itself would mend it within an interval, so it is held for a moment.
        agent.loop.turn = asyncio.sleep
        with contextlib.suppress(TypeError):
            answer = await get(agent, "/healthz")
            assert answer.status_code == 500
            assert "no turn" in answer.text


async def test_an_edit_of_the_policy_is_followed_without_a_restart(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one, Backend(local_address) as two:
        endpoints = [(local_address, one.port), (local_address, two.port)]
        rig.write(endpoints, mode="Off")
        async with rig.agent(), running(rig.publishing(0.4, 0.1)):
            await eventually(lambda: rig.weights() == [1.0, 1.0])
            assert rig.dataplane.state.vips[0].scheduler.type == "lsq"
            rig.write(endpoints, mode="Active")
            await eventually(lambda: rig.weights() == pytest.approx([0.5, 2.0]))
            assert rig.dataplane.state.vips[0].scheduler.type == "sed"


async def test_what_the_data_plane_was_told_is_followed_until_it_is_taken_back(rig, local_address):
    async with rig.dataplane, Backend(local_address) as one, Backend(local_address) as two:
        rig.write([(local_address, one.port), (local_address, two.port)])
        rig.dataplane.policy = "equal"
        async with rig.agent() as agent, running(rig.publishing(0.4, 0.1)):
            # From the first state on: without it the agent's own policy would be in force for a while.
            await eventually(lambda: rig.weights() == [1.0, 1.0])
            assert {state.vips[0].scheduler.type for state in rig.dataplane.applied if state.vips} == {"maglev"}
            (view,) = (await get(agent, "/state")).json()["vips"]
            assert view["policy"] == "equal"
            assert "`lb rl agent equal`" in view["warnings"][0]
            rig.dataplane.policy = ""
            await eventually(lambda: rig.weights() == pytest.approx([0.5, 2.0]))
            assert rig.dataplane.state.vips[0].scheduler.type == "sed"
            rig.dataplane.policy = "no-such-policy"
            await eventually(lambda: "'no-such-policy' is not known" in str(agent.plan.findings))
            assert rig.dataplane.state.vips[0].scheduler.type == "sed"


async def test_removed_vips_leave(rig):
    rig.write([("10.0.0.1", 80)])
    async with rig.dataplane, rig.agent() as agent:
        await eventually(lambda: rig.dataplane.state and len(rig.dataplane.state.vips) == 1)
        (rig.path / "files" / "web.yaml").unlink()
        await eventually(lambda: rig.dataplane.state.vips == ())
        await eventually(lambda: not agent.loop.vips)
        kept = rig.path / "state" / "plan.json"
        await eventually(lambda: kept.exists() and json.loads(kept.read_text())["content"]["vips"] == [])


async def test_endpoints_that_get_no_traffic_are_logged(rig, local_address):
    networks = "apiVersion: penstock.dev/v1alpha1\nkind: DataPlane\nmetadata: {name: edge}\n"
    (rig.path / "files" / "edge.yaml").write_text(networks + "spec: {staticEndpointCIDRs: [10.0.0.0/8]}\n")
    rig.write([("172.16.0.1", 80)])
    with capture_logs() as logs:
        async with rig.dataplane, rig.agent() as agent:
            await eventually(lambda: agent.plan is not None)
            await asyncio.sleep(0.1)
    (entry,) = (entry for entry in logs if entry["event"] == "finding")
    assert (entry["vip"], entry["reason"]) == ("default/web", "EndpointNotAllowed")
    assert entry["field"] == "spec.backends.endpoints[0].address"
    assert "172.16.0.1" in entry["message"]


async def test_a_state_that_cannot_be_computed_ends_nothing(rig, local_address, monkeypatch):
    plan = desired.plan

    def fail(*_):
        raise ZeroDivisionError("by accident")

    async with rig.dataplane, Backend(local_address) as one, rig.agent() as agent:
        monkeypatch.setattr(desired, "plan", fail)
        rig.write([(local_address, one.port)])
        await eventually(lambda: any("by accident" in text for text in agent.node_findings))
        monkeypatch.setattr(desired, "plan", plan)
        agent.changed()
        await eventually(lambda: agent.link.settled and agent.plan is not None)
        await eventually(lambda: not agent.node_findings)
