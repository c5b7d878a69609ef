"""Objects that are not what they should be: a clear error, never a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import penstock_core
import pytest
from hypothesis import HealthCheck, given, settings


def make_frames(path: Path, workers: int = 1) -> penstock_core.FrameWriter:
    writer = penstock_core.FrameWriter(str(path), 8, workers)
    writer.open_slot(1, 1)
    for i in range(20):
        writer.sample(1, "fct", 0.5 + i, 1_000_000)
    writer.publish(1_000_000)
    return writer


def patched(content: bytes, offset: int, layout: str, value: int) -> bytes:
    return content[:offset] + struct.pack(layout, value) + content[offset + struct.calcsize(layout) :]


BAD = {
    "empty": (lambda b: b"", "truncated", "size is 0"),
    "part of a header": (lambda b: b[:100], "truncated", "size is 100, expected 192"),
    "shorter than its header says": (lambda b: b[:4096], "truncated", "size is 4096"),
    "text": (lambda b: b"hello world, I am no shared object.\n" * 100, "foreign", "magic"),
    "unfinished": (lambda b: patched(b, 0, "<Q", 0), "foreign", "magic"),
    "other byte order": (lambda b: b[:8][::-1] + b[8:], "byte-order", "magic"),
    "other byte order mark": (lambda b: patched(b, 8, "<I", 0x04030201), "byte-order", "byte_order"),
    "older": (lambda b: patched(b, 12, "<I", 0), "older", "abi is 0, expected 1"),
    "newer": (lambda b: patched(b, 12, "<I", 3), "newer", "abi is 3, expected 2"),
    "slots beyond reason": (lambda b: patched(b, 64, "<I", 1 << 31), "corrupt", "slots"),
    "frames beyond the end": (lambda b: patched(b, 84, "<I", len(b)), "corrupt", "frame_stride"),
    "workers beyond the end": (lambda b: patched(b, 68, "<I", 60), "corrupt", "worker_stride"),
    "fields of no known type": (lambda b: patched(b, 192 + 28, "<I", 77), "corrupt", "field table is 0"),
    "retired": (lambda b: patched(b, 128, "<I", 1), "retired", "open the one that has its name now"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_frames_are_refused_with_field_and_fix(tmp_path: Path, what: str) -> None:
    damage, reason, text = BAD[what]
    path = tmp_path / "frames"
    make_frames(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(penstock_core.ShmError, match=text) as caught:
        penstock_core.FrameReader(str(path))
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{path}: ")


def test_an_absent_object_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        penstock_core.FrameReader(str(tmp_path / "absent"))
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(OSError, match=str(tmp_path)):
        penstock_core.FrameReader(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        penstock_core.ActionsWriter(str(tmp_path / "no" / "folder"), 4)


def test_frames_and_actions_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    make_frames(tmp_path / "frames")
    penstock_core.ActionsWriter(str(tmp_path / "actions"), 4)
    with pytest.raises(penstock_core.ShmError, match="magic"):
        penstock_core.ActionsReader(str(tmp_path / "frames"))
    with pytest.raises(penstock_core.ShmError, match="magic"):
        penstock_core.FrameReader(str(tmp_path / "actions"))


def test_truncation_after_opening_is_found(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    make_frames(path)
    reader = penstock_core.FrameReader(str(path))
    with path.open("r+b") as file:
        file.truncate(4096)
    for use in (
        reader.read,
        lambda: reader.samples("fct"),
        lambda: reader.reduce(["fct"], 1),
        lambda: reader.retired,
        lambda: reader.heartbeat_us,
    ):
        with pytest.raises(penstock_core.ShmError, match="size is 4096"):
            use()


def test_nothing_published_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    penstock_core.FrameWriter(str(path), 8)
    with pytest.raises(penstock_core.ShmError, match="no frame has been published") as caught:
        penstock_core.FrameReader(str(path)).read()
    assert caught.value.reason == "empty"


def test_closed_objects_say_so(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    make_frames(path)
    reader = penstock_core.FrameReader(str(path))
    reader.close()
    reader.close()
    with pytest.raises(penstock_core.ShmError, match="closed"):
        reader.read()


def test_channels_of_other_levels_are_named(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    make_frames(path)
    reader = penstock_core.FrameReader(str(path))
    for use in (
        lambda: reader.reduce(["fct", "win"], 1),
        lambda: reader.samples("win"),
        lambda: reader.samples("no such"),
    ):
        with pytest.raises(penstock_core.ShmError) as caught:
            use()
        assert caught.value.reason == "argument"


def test_a_new_writer_retires_what_had_its_name(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    make_frames(path)
    reader = penstock_core.FrameReader(str(path))
    assert not reader.retired
    make_frames(path, workers=2)
    assert reader.retired
    with pytest.raises(penstock_core.ShmError, match="is retired"):
        reader.read()
    assert penstock_core.FrameReader(str(path)).workers == 2


def test_an_object_that_is_gone_is_no_retired_one(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    make_frames(path)
    reader = penstock_core.FrameReader(str(path))
    path.unlink()
    for use in (reader.read, lambda: reader.heartbeat_us):
        with pytest.raises(FileNotFoundError):
            use()


def test_objects_in_use_keep_no_descriptor(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    objects: list[object] = []
    for number in range(20):
        frames, actions = tmp_path / f"{number}.frames", tmp_path / f"{number}.actions"
        make_frames(frames)
        objects += [penstock_core.FrameReader(str(frames)), penstock_core.ActionsWriter(str(actions), 8)]
        objects += [penstock_core.ActionsReader(str(actions))]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_weights_are_not_written_to_an_object_that_lost_its_name(tmp_path: Path) -> None:
    path = tmp_path / "actions"
    writer = penstock_core.ActionsWriter(str(path), 4)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        writer.write(np.ones(4, np.float32), np.ones(4, np.uint8), 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_survived(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "frames"
    make_frames(path)
    content = bytearray(path.read_bytes())
    flips = data.draw(st.lists(st.tuples(st.integers(0, 2048), st.integers(0, 255)), min_size=1, max_size=12))
    for offset, value in flips:
        content[offset] = value
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), 4096, 2000, 200]))]))
    try:
        reader = penstock_core.FrameReader(str(path))
        frame = reader.read()
        assert len(frame.active) == reader.slots
        for channel in reader.channels:
            reader.samples(channel, 1_000_000)
        for reduced in reader.reduce(reader.channels, 1_000_000).values():
            assert reduced.shape == (reader.slots, 5)
    except penstock_core.ShmError:
        pass


def test_actions_writers_check_their_arguments(tmp_path: Path) -> None:
    path = tmp_path / "actions"
    for slots in (0, 4097):
        with pytest.raises(ValueError, match="slots"):
            penstock_core.ActionsWriter(str(path), slots)
    writer = penstock_core.ActionsWriter(str(path), 4)
    with pytest.raises(ValueError, match="weights: has 3 entries"):
        writer.write(np.ones(3, np.float32), np.ones(4, np.uint8), 1)
    with pytest.raises(ValueError, match="generation: has 5 entries"):
        writer.write(np.ones(4, np.float32), np.ones(5, np.uint8), 1)
    with pytest.raises(ValueError, match="base: has 3 entries"):
        writer.write(np.ones(4, np.float32), np.ones(4, np.uint8), 1, np.ones(3, np.float32))


def test_a_restarted_agent_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "actions"
    first = penstock_core.ActionsWriter(str(path), 4)
    reader = penstock_core.ActionsReader(str(path))
    first.write(np.ones(4, np.float32), np.ones(4, np.uint8), 1)
    first.close()
    again = penstock_core.ActionsWriter(str(path), 4)
    assert again.write(np.full(4, 2, np.float32), np.ones(4, np.uint8), 2) == 2
    assert reader.read().weights.tolist() == [2, 2, 2, 2]
    assert not reader.retired


def test_an_object_without_bases_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "actions"
    penstock_core.ActionsWriter(str(path), 4).write(np.ones(4, np.float32), np.ones(4, np.uint8), 1)
    content = bytearray(path.read_bytes())
    content[76:80] = struct.pack("<I", 4)  # fields: those of releases before
    path.write_bytes(content)
    reader = penstock_core.ActionsReader(str(path))
    assert reader.read().base is None
    writer = penstock_core.ActionsWriter(str(path), 4)
    assert reader.retired
    writer.write(np.ones(4, np.float32), np.ones(4, np.uint8), 2, np.full(4, 3, np.float32))
    base = penstock_core.ActionsReader(str(path)).read().base
    assert base is not None
    assert base.tolist() == [3, 3, 3, 3]


def test_a_reader_sees_what_bases_are_added_to(tmp_path: Path) -> None:
    writer = penstock_core.ActionsWriter(str(tmp_path / "actions"), 2)
    reader = penstock_core.ActionsReader(writer.path)
    for shared in (False, True):
        writer.write(np.ones(2, np.float32), np.ones(2, np.uint8), 1, np.full(2, 3, np.float32), shared=shared)
        read = reader.read()
        assert read.base is not None
        assert (read.base.tolist(), read.shared) == ([3, 3], shared)
    writer.write(np.ones(2, np.float32), np.ones(2, np.uint8), 2, None, shared=True)
    assert (reader.read().base, reader.read().shared) == (None, False)


@pytest.mark.parametrize("slots", [8, 2])
def test_another_number_of_slots_replaces_the_object(tmp_path: Path, slots: int) -> None:
    path = tmp_path / "actions"
    penstock_core.ActionsWriter(str(path), 4)
    reader = penstock_core.ActionsReader(str(path))
    penstock_core.ActionsWriter(str(path), slots)
    assert reader.retired
    assert penstock_core.ActionsReader(str(path)).slots == slots
    assert [entry.name for entry in tmp_path.iterdir()] == ["actions"]


@pytest.mark.parametrize("content", [b"", b"x" * 50, b"\0" * 1000])
def test_garbage_in_the_way_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "actions"
    path.write_bytes(content)
    penstock_core.ActionsWriter(str(path), 4)
    assert penstock_core.ActionsReader(str(path)).slots == 4
