"""Features of the core against the reference in plain Python, on captures in files; see captures/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import pcaps
from tests.support.feature_reference import Seen
from tests.support.feature_rig import Rig
from tests.support.record_captures import made_up
from tests.support.scenes import SCENES, Scene

FILES = sorted((Path(__file__).parent / "captures").glob("*.pcap*"))
LARGEST = 100_000  # bytes of a file


def rig_for(path: Path, folder: Path, *, one_way: bool = False) -> tuple[Rig, list[Seen]]:
    """A core and a reference that have seen nothing yet, and what they are to see."""
    vip, port, protocol = pcaps.service(path)
    return Rig(folder / "frames", vip, port, protocol, one_way=one_way), pcaps.read(path, vip, port)


@pytest.mark.parametrize("per_vector", [1, 3, 64])
@pytest.mark.parametrize("one_way", [False, True], ids=["two-way", "one-way"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_core_and_reference_agree(path: Path, one_way: bool, per_vector: int, tmp_path: Path) -> None:
    rig, capture = rig_for(path, tmp_path, one_way=one_way)
    rig.see(capture, per_vector=per_vector)
    rig.assert_equal()
    assert rig.counters()["n_flow"] > 0


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_each_scene_is_in_a_file_that_shows_it(scene: Scene, tmp_path: Path) -> None:
    path = Path(__file__).parent / "captures" / f"{scene.name}.pcapng"
    rig, capture = rig_for(path, tmp_path)
    rig.see(capture)
    counters = rig.counters()
    assert all(counters[name] >= least for name, least in scene.least.items()), (counters, scene.least)
    assert counters["n_active"] == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_stay_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST


def test_a_capture_is_read_as_it_was_written(tmp_path: Path) -> None:
    capture = made_up()
    capture += [seen._replace(time_us=seen.time_us + 10**6, segment_size=100) for seen in capture]
    pcaps.write(tmp_path / "a.pcapng", capture)
    vip, port, _ = pcaps.service(tmp_path / "a.pcapng")
    read = pcaps.read(tmp_path / "a.pcapng", vip, port)
    assert [told(seen) for seen in read] == [told(seen) for seen in capture]


def told(seen: Seen) -> tuple[object, ...]:
    """All of a packet but its payload, which files leave out."""
    tcp = seen.packet.payload
    fields = [tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags, tcp.window, tcp.options]
    return (seen.time_us, seen.from_client, seen.segment_size, seen.packet.src, len(seen.packet), *fields)
