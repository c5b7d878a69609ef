"""Shared memory that is full, read-only or gone: traffic goes on, findings name what is missing, and it comes back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import penstock_core
import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, RunningDataplane, running_dataplane, vip
from tests.support.disks import Disk, disk
from tests.support.lab import Lab, eventually

pytestmark = pytest.mark.netns


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "shm", size="8m") as small:
        yield small


@pytest.fixture
def dataplane(lab: Lab, memory: Disk) -> Iterator[RunningDataplane]:
    with running_dataplane(lab, shm_dir=memory.path, flow_table_size=4096, max_vips=16, max_slots=256) as running:
        try:
            yield running
        finally:
            memory.remount("rw")
            if running.process.poll() is not None:
                running.restart()
            running.withdraw()


def frames_of(memory: Disk) -> list[Path]:
    return sorted(memory.path.glob("*.frames"))


def readable(memory: Disk) -> bool:
    try:
        return [penstock_core.FrameReader(str(path)).read() for path in frames_of(memory)] != []
    except penstock_core.ShmError:
        return False


def test_a_killed_data_plane_uses_the_memory_of_the_one_before(
    lab: Lab, dataplane: RunningDataplane, memory: Disk
) -> None:
    dataplane.apply(vip(lab))
    memory.fill()
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
        name = kept.get()
        dataplane.kill_child()
        eventually(dataplane.answers)
        assert kept.get() == name
    assert dataplane.stats().findings == ()
    assert readable(memory)


def test_without_room_for_frames_flows_go_on_and_frames_come_later(
    lab: Lab, dataplane: RunningDataplane, memory: Disk
) -> None:
    dataplane.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
        name = kept.get()
        dataplane.stop()
        for path in frames_of(memory):
            path.unlink()
        memory.fill()
        dataplane.restart()
        assert dataplane.hello().reattached_flows >= 1
        assert kept.get() == name
    (finding,) = dataplane.stats().findings
    assert "No space left on device; free shared memory" in finding
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    memory.empty()
    eventually(lambda: readable(memory))
    assert dataplane.stats().findings == ()


def test_a_new_vip_is_served_without_frames(lab: Lab, dataplane: RunningDataplane, memory: Disk) -> None:
    dataplane.apply(vip(lab))
    memory.fill()
    dataplane.apply(vip(lab), vip(lab, port=81))
    assert get(lab, VIP_IPV4, port=81) in (b"s1", b"s2")
    assert len(frames_of(memory)) == 1
    findings = "\n".join(dataplane.stats().findings)
    assert "VIPs forward without frames" in findings
    assert "penstock.state" in findings
    memory.empty()
    eventually(lambda: len(frames_of(memory)) == 2 and not dataplane.stats().findings)


def test_on_a_read_only_file_system_flows_go_on(lab: Lab, dataplane: RunningDataplane, memory: Disk) -> None:
    dataplane.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
        name = kept.get()
        dataplane.stop()
        memory.remount("ro")
        dataplane.restart()
        assert kept.get() == name
        assert "Read-only file system" in dataplane.stats().findings[0]
        memory.remount("rw")
        eventually(lambda: len(dataplane.stats().findings) == 1)  # frames are there again
        dataplane.stop()
        dataplane.restart()
        assert kept.get() == name
    assert dataplane.stats().findings == ()


def test_a_first_start_without_room_serves_from_its_own_memory(
    lab: Lab, dataplane: RunningDataplane, memory: Disk
) -> None:
    memory.fill()
    dataplane.apply(vip(lab))
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    assert "flows are in this process's memory alone" in dataplane.stats().findings[0]
    memory.empty()
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
        name = kept.get()
        dataplane.stop()
        dataplane.restart()
        assert kept.get() == name


def test_a_larger_flow_table_that_has_no_room_beside_the_old_one_takes_its_place(
    lab: Lab, dataplane: RunningDataplane, memory: Disk
) -> None:
    dataplane.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
        name = kept.get()
        dataplane.stop()
        old = dataplane.settings.arena_path.stat().st_size
        dataplane.settings = dataplane.settings.model_copy(update={"flow_table_size": 8192})
        memory.fill()
        with (memory.path / "ballast").open("r+b") as ballast:
            ballast.truncate(max((memory.path / "ballast").stat().st_size - old, 0))
        dataplane.restart()
        assert kept.get() == name
        assert dataplane.stats().flow_capacity >= 8192
        assert dataplane.stats().findings == ()
        assert dataplane.settings.arena_path.stat().st_size > old


def test_a_directory_that_is_gone_is_made_again(lab: Lab) -> None:
    with running_dataplane(lab) as running:
        running.apply(vip(lab))
        running.stop()
        shutil.rmtree(running.settings.shm_dir)
        running.restart()
        running.apply(vip(lab))
        assert get(lab, VIP_IPV4) in (b"s1", b"s2")
        running.withdraw()


def test_without_room_for_its_socket_a_data_plane_forwards(lab: Lab, tmp_path: Path) -> None:
    with running_dataplane(lab, run_dir=tmp_path / "run") as running:
        running.apply(vip(lab))
        run_dir = running.settings.run_dir
        shutil.rmtree(run_dir)
        run_dir.write_text("in the way")
        running.kill_child()
        with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
            name = kept.get()
            assert not running.answers()
            run_dir.unlink()
            eventually(running.answers)
            assert kept.get() == name
        running.withdraw()
