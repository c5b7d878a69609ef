"""The link to the data plane over a real socket: restarts of either side, refusals, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import json
from importlib import metadata
from ipaddress import ip_address

import pytest
from penstock_agent.dataplane import link as link_module
from penstock_agent.dataplane.embedded import EmbeddedDataPlane
from penstock_agent.dataplane.link import IN_FORCE, Link
from penstock_agent.errors import DataPlaneRefusedError, DataPlaneUnreachableError
from penstock_agent.files import StateStore
from penstock_agent.findings import NodeFindings
from penstock_embedded.messages import Backend, BackendState, DesiredState, Error, Method, Refusal, Vip

from tests.support.recording_dataplane import RecordingDataPlane
from tests.support.waiting import eventually, running

KEY = "00112233445566778899aabbccddeeff"


def state(*ports):
    vips = tuple(
        Vip(
            id=f"{port:016x}",
            key=f"shop/web:{port}",
            addresses=("203.0.113.10",),
            port=port,
            backends=(Backend(id="a", address="10.0.0.1", port=8080),),
        )
        for port in ports
    )
    return DesiredState(generation=0, scheduler_key=KEY, vips=vips)


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "control.sock"


@contextlib.asynccontextmanager
async def linked(socket, memory, wanted=None):
    adapter = EmbeddedDataPlane(socket, timeout_seconds=2.0)
    store = StateStore(memory, NodeFindings())
    link = Link(adapter, store)
    if wanted is not None:
        link.want(wanted)
    try:
        async with running(link.run(), store.run()):
            yield link
    finally:
        await adapter.close()


async def test_a_state_is_sent_once(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled and link.dump is not None and link.dump.vips)
        link.want(state(80))
        await asyncio.sleep(0.1)
        assert len(dataplane.applied) == 1
        link.want(state(80, 81))
        await eventually(lambda: len(dataplane.applied) == 2 and link.settled)
        assert [s.generation for s in dataplane.applied] == [1, 2]
        await eventually(lambda: len(link.dump.vips) == 2)


async def test_a_restarted_agent_sends_nothing_that_is_right(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane:
        async with linked(socket, tmp_path / "m", state(80)) as link:
            await eventually(lambda: link.settled)
        async with linked(socket, tmp_path / "m", state(80)) as link:
            await eventually(lambda: link.settled and link.dump is not None)
            assert len(dataplane.applied) == 1
            link.want(state(81))
            await eventually(lambda: link.settled)
            assert [s.generation for s in dataplane.applied] == [1, 2]


async def test_a_restarted_data_plane_gets_the_state_again(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled)
        await dataplane.restart()
        await eventually(lambda: len(dataplane.applied) == 2 and link.settled)
        assert dataplane.applied[1].vips == dataplane.applied[0].vips
        assert link.hello.instance_id == dataplane.instance_id


async def test_it_waits_for_a_data_plane_to_come(socket, tmp_path):
    async with linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: "penstock dataplane" in link.error)
        assert not link.settled
        async with RecordingDataPlane(socket):
            await eventually(lambda: link.settled)
            assert link.error == ""


async def test_a_state_refused_in_part_is_said(socket, tmp_path):
    dataplane = RecordingDataPlane(socket)
    dataplane.refuse = {f"{80:016x}": Error(code="exhausted", message="no slot is free")}
    async with dataplane, linked(socket, tmp_path / "m", state(80, 81)) as link:
        await eventually(lambda: "no slot is free" in link.error)
        assert not link.settled
        assert link.failures == 1
        # A better state is offered at once, not after the pause.
        link.want(state(81))
        await eventually(lambda: link.settled)


async def test_a_state_refused_as_a_whole_changes_nothing(socket, tmp_path):
    dataplane = RecordingDataPlane(socket)
    dataplane.refuse_all = Error(code="invalid", field="vips", message="too many", fix="serve fewer")
    async with dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.error == "vips: too many; serve fewer")
        assert dataplane.state is None
        assert link.hello is not None


async def test_garbage_drops_the_connection_and_the_link_recovers(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled)
        dataplane.garbage = b'{"id": 1, "resul\n'
        link.refresh()
        await eventually(lambda: len(dataplane.asked(Method.HELLO)) == 2)
        await eventually(lambda: link.settled)
        assert len(dataplane.applied) == 1


async def test_a_forgotten_memory_costs_one_apply(socket, tmp_path):
    memory = tmp_path / "m"
    async with RecordingDataPlane(socket) as dataplane:
        async with linked(socket, memory, state(80)) as link:
            await eventually(lambda: link.settled)
        (memory / IN_FORCE).write_text("{")
        async with linked(socket, memory, state(80)) as link:
            await eventually(lambda: link.settled)
        assert [s.generation for s in dataplane.applied] == [1, 2]


async def test_reapply_sends_the_same_state(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled)
        link.reapply()
        await eventually(lambda: len(dataplane.applied) == 2)


async def test_lost_announcements_are_reported(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled)
        dataplane.lost_announcements = (ip_address("203.0.113.10"),)
        await eventually(lambda: link.stats.lost_announcements != ())


async def test_withdraw_leaves_nothing_to_replay(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled)
        await link.withdraw()
        assert dataplane.state is None
        assert not (tmp_path / "m" / IN_FORCE).exists()
        await dataplane.restart()
        await eventually(lambda: link.hello is not None and link.hello.instance_id == dataplane.instance_id)
        assert len(dataplane.applied) == 1


async def test_a_data_plane_that_was_never_told_anything_need_not_be_there_to_withdraw(socket, tmp_path):
    async with linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.error)
        await link.withdraw()


async def test_what_a_data_plane_may_have_been_told_is_withdrawn_by_it_alone(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane:
        dataplane.no_answer_to = Method.APPLY  # it may have done all, or some
        async with linked(socket, tmp_path / "m", state(80)):
            await eventually(lambda: dataplane.asked(Method.APPLY))
    async with linked(socket, tmp_path / "m") as link:
        await eventually(lambda: link.error)
        with pytest.raises(DataPlaneUnreachableError):
            await link.withdraw()
        link.reapply()
        with pytest.raises(DataPlaneUnreachableError):
            await link.withdraw()
        async with dataplane:
            await link.withdraw()
            assert dataplane.asked(Method.WITHDRAW)


async def test_nothing_outlives_a_boot_that_would_have_to_be_withdrawn(socket, tmp_path, monkeypatch):
    async with RecordingDataPlane(socket), linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled)
    monkeypatch.setattr(link_module, "boot_id", lambda: "another")
    async with linked(socket, tmp_path / "m") as link:
        await link.withdraw()
    assert not (tmp_path / "m" / IN_FORCE).exists()


async def test_another_protocol_version_is_refused(socket):
    async with RecordingDataPlane(socket) as dataplane:
        hello = dataplane._hello().model_copy(update={"protocol_version": 9})
        dataplane.garbage = b'{"id":1,"result":' + hello.model_dump_json().encode() + b"}\n"
        adapter = EmbeddedDataPlane(socket)
        with pytest.raises(DataPlaneRefusedError, match="upgrade the older of the two") as refused:
            await adapter.hello()
        assert "data plane test speaks version 9" in str(refused.value)
        assert f"this agent {metadata.version('penstock')} version 1" in str(refused.value)
        await adapter.close()


async def test_an_older_data_plane_gets_what_it_knows_until_a_newer_one_replaces_it(socket, tmp_path):
    """An upgrade replaces agents before data planes."""
    (vip,) = state(80).vips
    unready = vip.backends[0].model_copy(update={"id": "b", "state": BackendState.UNREADY})
    vip = vip.model_copy(update={"when_no_flow": Refusal.DROP, "backends": (*vip.backends, unready)})
    wanted = state().model_copy(update={"vips": (vip,)})
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m") as link:
        dataplane.revision = 1
        link.want(wanted)
        await eventually(lambda: link.settled)
        (sent,) = dataplane.asked(Method.APPLY)[-1].params["vips"]
        assert "when_no_flow" not in sent
        assert [backend["state"] for backend in sent["backends"]] == ["active", "draining"]
        dataplane.revision = 2
        await dataplane.restart()
        await eventually(lambda: link.settled and dataplane.generation is not None)
        assert dataplane.applied[-1].vips == (vip,)


async def test_states_of_backends_that_only_a_newer_data_plane_knows_are_read(socket, tmp_path):
    async with RecordingDataPlane(socket) as dataplane, linked(socket, tmp_path / "m", state(80)) as link:
        await eventually(lambda: link.settled and link.dump is not None and link.dump.vips)
        placed = dataplane._vips[f"{80:016x}"][1]
        slot, backend = placed["a"]
        placed["a"] = slot, backend.model_copy(update={"state": "resting"})
        link.refresh()
        await eventually(lambda: link.dump.vips[0].backends[0].state == "resting")
        assert link.settled


async def test_answers_of_a_newer_data_plane_are_read(socket):
    """Whoever goes back to an older release has agents that are older than data planes for a while."""
    async with RecordingDataPlane(socket) as dataplane:
        hello = dataplane._hello().model_dump(mode="json") | {"fashion": "new"}
        dataplane.garbage = json.dumps({"id": 1, "result": hello, "mood": "good"}).encode() + b"\n"
        adapter = EmbeddedDataPlane(socket)
        assert (await adapter.hello()).instance_id == dataplane.instance_id
        await adapter.close()


async def test_an_absent_data_plane_is_named_without_error_numbers(socket):
    adapter = EmbeddedDataPlane(socket)
    with pytest.raises(DataPlaneUnreachableError, match=r"no data plane listens at .*; look at the data-plane pod"):
        await adapter.hello()
    async with RecordingDataPlane(socket) as dataplane:
        await dataplane.stop()  # its socket may be left
        with pytest.raises(DataPlaneUnreachableError, match="no data plane listens at "):
            await adapter.hello()


async def test_a_silent_data_plane_is_given_up(socket):
    async with RecordingDataPlane(socket) as dataplane:
        dataplane.silent = True
        adapter = EmbeddedDataPlane(socket, timeout_seconds=0.1)
        with pytest.raises(DataPlaneUnreachableError, match="hello failed: TimeoutError"):
            await adapter.hello()


async def test_an_answer_to_another_request_is_not_taken(socket):
    async with RecordingDataPlane(socket) as dataplane:
        adapter = EmbeddedDataPlane(socket)
        dataplane.garbage = b'{"id":77,"result":{}}\n'
        with pytest.raises(DataPlaneUnreachableError, match="answer to request 77, expected 1"):
            await adapter.withdraw()
        await adapter.close()
