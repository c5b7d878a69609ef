"""Frames and actions of a running data plane, as an agent sees and writes them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import penstock_core
import pytest
from penstock_embedded import native
from penstock_embedded.messages import Vip

from tests.support import sanitizers
from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, RunningDataplane, running_dataplane, vip
from tests.support.lab import HTTP_PORT, Lab, eventually

pytestmark = pytest.mark.netns


def path_of(dataplane: RunningDataplane, name: str) -> Path:
    return dataplane.settings.shm_dir / name.lstrip("/")


def reader_of(dataplane: RunningDataplane) -> penstock_core.FrameReader:
    return penstock_core.FrameReader(str(path_of(dataplane, dataplane.dump().vips[0].frames)))


def published(reader: penstock_core.FrameReader) -> penstock_core.Frame | None:
    """The newest frame of an object that may be new itself."""
    try:
        return reader.read()
    except penstock_core.ShmError as error:
        assert error.reason == "empty"
        return None


def weights_of(dataplane: RunningDataplane) -> dict[str, float]:
    return {each.id: each.weight for each in dataplane.dump().vips[0].backends}


def has_weights(dataplane: RunningDataplane, **wanted: float) -> bool:
    return weights_of(dataplane) == wanted


def has_bases(dataplane: RunningDataplane, **wanted: float) -> bool:
    return {each.id: each.base for each in dataplane.dump().vips[0].backends} == wanted


def write_weights(dataplane: RunningDataplane, writer: penstock_core.ActionsWriter, **weights: float) -> None:
    frame = reader_of(dataplane).read()
    column = np.zeros(len(frame.generation), dtype=np.float32)
    for backend in dataplane.dump().vips[0].backends:
        column[backend.slot] = weights[backend.id]
    writer.write(column, frame.generation, penstock_core.boottime_us())


def writer_for(dataplane: RunningDataplane) -> penstock_core.ActionsWriter:
    status = dataplane.dump().vips[0]
    return penstock_core.ActionsWriter(str(path_of(dataplane, status.actions)), status.slots)


def test_frames_count_what_was_served(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    reader = reader_of(dataplane)
    assert reader.instance_id == dataplane.hello().instance_id
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        for _ in range(6):
            get(lab, VIP_IPV4)
        frame = eventually(lambda: (f := reader.read()).counters["n_flow"].sum() == 7 and f)
        assert frame.counters["n_flow_on"].sum() >= 1
        eventually(lambda: reader.read().counters["n_fct"].sum() == 6)
    eventually(lambda: reader.read().counters["n_fct"].sum() == 7)
    assert frame.active.sum() == 2
    slots = [backend.slot for backend in dataplane.dump().vips[0].backends]
    assert set(np.flatnonzero(frame.active)) == set(slots)
    _values, _ages, valid, seen = reader.samples("fct")
    assert seen.sum() == 7
    assert 5 <= valid.sum() <= 7  # a sample overwrites a random one, perhaps one of these


def test_the_heartbeat_goes_on_while_the_socket_is_busy_or_idle(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    reader = reader_of(dataplane)
    first = reader.heartbeat_us
    eventually(lambda: reader.heartbeat_us > first)
    sequence = reader.read().sequence
    time.sleep(1.0)
    assert 3 <= reader.read().sequence - sequence <= 7  # every 200 ms


def test_an_agent_steers_new_flows_by_weights(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, scheduler={"type": "sed"}))
    writer = writer_for(dataplane)
    for s1, s2, expected in ((1.0, 0.0, b"s1"), (0.0, 1.0, b"s2")):
        write_weights(dataplane, writer, s1=s1, s2=s2)
        eventually(partial(has_weights, dataplane, s1=s1, s2=s2))
        assert {get(lab, VIP_IPV4) for _ in range(6)} == {expected}
    again = dataplane.apply(vip(lab, scheduler={"type": "sed"}))
    assert not again.changed
    assert weights_of(dataplane) == {"s1": 0.0, "s2": 1.0}  # an apply keeps the agent's weights


def test_an_agent_steers_new_flows_by_bases(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, scheduler={"type": "sed"}))
    assert {each.base for each in dataplane.dump().vips[0].backends} == {1.0}
    writer, frame = writer_for(dataplane), reader_of(dataplane).read()
    for favourite in ("s1", "s2"):
        bases = np.full(len(frame.generation), 1000, dtype=np.float32)
        for each in dataplane.dump().vips[0].backends:
            bases[each.slot] = 0.5 if each.id == favourite else 1000
        writer.write(np.ones_like(bases), frame.generation, penstock_core.boottime_us(), bases)
        wished = {"s1": 1000.0, "s2": 1000.0, favourite: 0.5}
        eventually(partial(has_bases, dataplane, **wished))
        assert {get(lab, VIP_IPV4) for _ in range(6)} == {favourite.encode()}


def test_weights_outlive_a_restart_of_the_data_plane(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, scheduler={"type": "sed"}))
    write_weights(dataplane, writer_for(dataplane), s1=2.5, s2=0.5)
    eventually(lambda: weights_of(dataplane) == {"s1": 2.5, "s2": 0.5})
    old = reader_of(dataplane)
    dataplane.kill_child()
    eventually(dataplane.answers)
    eventually(lambda: weights_of(dataplane) == {"s1": 2.5, "s2": 0.5})
    assert old.retired
    assert reader_of(dataplane).instance_id == dataplane.hello().instance_id


@pytest.mark.parametrize("spoil", ["truncated", "garbage", "fifo", "directory", "link"])
def test_a_spoiled_actions_object_changes_nothing_and_kills_nobody(
    lab: Lab, dataplane: RunningDataplane, spoil: str
) -> None:
    dataplane.apply(vip(lab, scheduler={"type": "sed"}))
    writer = writer_for(dataplane)
    write_weights(dataplane, writer, s1=1.0, s2=3.0)
    eventually(lambda: weights_of(dataplane) == {"s1": 1.0, "s2": 3.0})
    instance = dataplane.hello().instance_id
    path = path_of(dataplane, dataplane.dump().vips[0].actions)
    match spoil:
        case "truncated":
            os.truncate(path, 100)
        case "garbage":
            path.write_bytes(os.urandom(path.stat().st_size))
        case "fifo":
            path.unlink()
            os.mkfifo(path)
        case "directory":
            path.unlink()
            path.mkdir()
        case "link":
            path.unlink()
            path.symlink_to("/proc/kcore")
    time.sleep(0.7)
    assert dataplane.hello().instance_id == instance
    assert weights_of(dataplane) == {"s1": 1.0, "s2": 3.0}
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    if spoil == "directory":
        path.rmdir()
    else:
        path.unlink()
    again = writer_for(dataplane)  # a new object is taken as the old one was, and its sequence is the same
    write_weights(dataplane, again, s1=3.0, s2=1.0)
    eventually(lambda: weights_of(dataplane) == {"s1": 3.0, "s2": 1.0})


def test_weights_of_a_silent_agent_become_equal_after_the_grace_period(lab: Lab) -> None:
    with running_dataplane(lab, grace_seconds=1.0) as running:
        running.apply(vip(lab, scheduler={"type": "sed"}))
        writer = writer_for(running)
        for _ in range(8):  # for longer than the grace period, but not silent
            write_weights(running, writer, s1=1.0, s2=3.0)
            time.sleep(0.2)
        assert weights_of(running) == {"s1": 1.0, "s2": 3.0}
        eventually(lambda: 1.0 < weights_of(running)["s1"] < weights_of(running)["s2"] < 3.0)
        write_weights(running, writer, s1=1.0, s2=3.0)  # it is back
        eventually(lambda: weights_of(running) == {"s1": 1.0, "s2": 3.0})
        running.withdraw()


def test_without_an_object_the_configured_weights_come_back_after_the_grace_period(lab: Lab) -> None:
    with running_dataplane(lab, grace_seconds=1.0) as running:
        running.apply(vip(lab, scheduler={"type": "sed"}))
        write_weights(running, writer_for(running), s1=1.0, s2=3.0)
        eventually(lambda: weights_of(running) == {"s1": 1.0, "s2": 3.0})
        path_of(running, running.dump().vips[0].actions).unlink()
        time.sleep(0.5)
        assert weights_of(running) == {"s1": 1.0, "s2": 3.0}
        eventually(lambda: weights_of(running) == {"s1": 1.0, "s2": 1.0})
        running.withdraw()


def test_weights_that_cannot_be_are_refused(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, scheduler={"type": "sed"}))
    writer = writer_for(dataplane)
    for s1, s2 in ((float("nan"), 1.0), (-1.0, 1.0), (float("inf"), 1.0), (0.0, 0.0), (2e6, 1.0)):
        write_weights(dataplane, writer, s1=s1, s2=s2)
        time.sleep(0.3)
        assert weights_of(dataplane) == {"s1": 1.0, "s2": 1.0}


def test_growth_makes_a_new_frames_object_and_retires_the_old(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    before = dataplane.dump().vips[0]
    reader = reader_of(dataplane)
    for _ in range(4):
        get(lab, VIP_IPV4)
    eventually(lambda: reader.read().counters["n_flow"].sum() == 4)
    many = [{"id": f"b{n}", "address": "10.77.1.2", "port": HTTP_PORT + n} for n in range(before.slots)]
    dataplane.apply(vip(lab, backends=[*vip(lab)["backends"], *many]))
    after = dataplane.dump().vips[0]
    assert after.slots >= 2 * before.slots
    assert {each.id: each.slot for each in before.backends}.items() <= {e.id: e.slot for e in after.backends}.items()
    eventually(lambda: reader.retired)
    grown = reader_of(dataplane)
    assert grown.slots == after.slots
    assert eventually(lambda: published(grown)).counters["n_flow"].sum() == 4
    assert grown.samples("fct")[2].sum() >= 3  # samples were carried over


def test_a_vip_that_drains_over_a_restart_comes_back_with_frames_or_leaves_none(
    lab: Lab, dataplane: RunningDataplane
) -> None:
    web = vip(lab)
    frames = path_of(dataplane, f"/penstock.{web['id']}.frames")
    for returns in (True, False):
        dataplane.apply(web)
        with HttpConnection(lab, VIP_IPV4) as kept:
            kept.get()
            dataplane.apply()
            dataplane.stop()
            dataplane.restart()
            kept.get()
        eventually(lambda: not dataplane.dump().vips)
        if returns:
            dataplane.apply(web)
            get(lab, VIP_IPV4)
            eventually(lambda: (frame := published(reader_of(dataplane))) and frame.counters["n_flow"].sum() == 1)
        else:
            eventually(lambda: not frames.exists())


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """Room for the frames of a few backends."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_changes_for_whose_frames_there_is_no_memory_are_in_force_without_frames(small_memory: Path) -> None:
    def backends(count: int) -> list[tuple[int, bytes, int, int, float]]:
        return [(n + 1, native.address_bytes(ip_address("10.1.0.0") + n + 1), 80, 1, 1.0) for n in range(count)]

    wanted = Vip(id="1" * 16, key="a", addresses=(VIP_IPV4,), port=80, features="full")
    arguments = native.vip_arguments(wanted)
    core = penstock_core.EmbeddedDataplane(str(small_memory), "one", bytes(16), flows=1024, vips=8, slots=4096)
    try:
        core.set_vip(1, **arguments | {"backends": backends(2)})
        core.publish()
        reader = penstock_core.FrameReader(str(small_memory / core.vip_status(1)["frames"]))
        core.set_vip(2, **arguments | {"port": 81, "backends": backends(500)})
        core.set_vip(1, **arguments | {"backends": backends(500)})
        for number in (1, 2):
            assert len(core.vip_status(number)["backends"]) == 500
        assert "free shared memory" in core.stats()["findings"][0]
        assert [each.name for each in small_memory.iterdir() if each.suffix == ".new"] == []
        sequence = reader.read().sequence
        core.publish()
        assert reader.read().sequence == sequence  # a reader finds that they are stale
        core.set_vip(1, **arguments | {"backends": backends(3)})
        assert len([each for each in core.vip_status(1)["backends"] if not each["removed"]]) == 3
    finally:
        core.withdraw()


@pytest.mark.sanitized
def test_who_asks_while_a_data_plane_ends_is_told_so(tmp_path: Path) -> None:
    sanitizer = sanitizers.chosen(tmp_path)
    prefix = sanitizer.command() if sanitizer else []
    program = f"{sanitizers.LOAD}\nfrom tests.support import asking\nasking.main(sys.argv[1])"
    command = [*prefix, sys.executable, "-c", program, str(tmp_path)]
    asked = subprocess.run(command, timeout=50, check=False, capture_output=True, text=True)
    if sanitizer:
        sanitizer.require_silence()
    assert asked.returncode == 0, asked.stderr


def test_frames_may_be_read_by_the_group_and_written_by_nobody_else(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    frames = path_of(dataplane, dataplane.dump().vips[0].frames)
    assert frames.stat().st_mode & 0o777 == 0o640
    for private in (dataplane.settings.arena_path, dataplane.settings.state_path):
        assert private.stat().st_mode & 0o777 == 0o600
