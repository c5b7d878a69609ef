"""The layout of shared objects, read from mapped files byte by byte with Python's own means."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import penstock_core
import pytest

HEADER = struct.Struct("<QIIQ40s4I4IQ3Q II Q 6Q")
FIELD = struct.Struct("<20s5I")
FRAME = struct.Struct("<4Q")
DTYPES = {1: "u1", 2: "<u4", 3: "<u8", 4: "<i8", 5: "<f4", 6: "<u8", 7: "<u8"}
IN_HEADER, IN_FRAME, IN_WORKER = 1, 2, 3
SLOTS = 70
ROOT = Path(__file__).resolve().parents[2]


class Field(NamedTuple):
    """A row of the field table."""

    stride: int
    place: int
    type: int
    elements: int
    offset: int


class Layout:
    """An object as an independent reader sees it."""

    def __init__(self, path: Path) -> None:
        self.bytes = path.read_bytes()
        (
            self.magic,
            self.byte_order,
            self.abi,
            self.size,
            self.instance_id,
            self.slots,
            self.workers,
            self.level,
            fields,
            self.fields_offset,
            self.frames_offset,
            self.frame_stride,
            self.workers_offset,
            self.worker_stride,
            *_,
        ) = HEADER.unpack_from(self.bytes)
        rows = [FIELD.unpack_from(self.bytes, self.fields_offset + i * FIELD.size) for i in range(fields)]
        self.fields = {(row[2], row[0].rstrip(b"\0").decode()): Field(*row[1:]) for row in rows}

    def column(self, place: int, name: str, base: int = 0) -> np.ndarray:
        field = self.fields[place, name]
        dtype = np.dtype(DTYPES[field.type])
        stride = field.stride or dtype.itemsize
        return np.ndarray(field.elements, dtype, self.bytes, base + field.offset, (stride,))

    def frame_offset(self, sequence: int) -> int:
        for i in range(3):
            offset: int = self.frames_offset + i * self.frame_stride
            if FRAME.unpack_from(self.bytes, offset)[0] == sequence:
                return offset
        raise AssertionError(f"no frame has sequence {sequence}")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "frames"
    writer = penstock_core.FrameWriter(str(path), SLOTS, workers=2, instance_id="me", time_us=7)
    writer.open_slot(0, 1)
    writer.open_slot(69, 200)
    writer.count(69, "n_flow", 3, worker=0)
    writer.count(69, "n_flow", 4, worker=1)
    writer.sample(69, "fct", 0.25, 2_000_000, worker=1)
    writer.publish(1_000, actions_sequence=42)
    writer.count(0, "bytes", 1500)
    writer.publish(2_000, actions_sequence=43)
    return path


def test_header_says_what_the_file_is(written: Path) -> None:
    layout = Layout(written)
    assert HEADER.size == 192
    assert struct.pack("<Q", layout.magic) == b"PNPSFRM1"
    assert (layout.byte_order, layout.abi) == (0x01020304, 1)
    assert layout.size == written.stat().st_size
    assert layout.instance_id.rstrip(b"\0") == b"me"
    assert (layout.slots, layout.workers, layout.level) == (SLOTS, 2, 1)


def test_the_page_shows_this_header() -> None:
    page = (ROOT / "docs/explanation/shared-memory.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (?:(\d+) x )?(u32|u64|char) \| (\w+) \|", page, re.MULTILINE)
    codes = {"u32": "I", "u64": "Q", "char": "s"}
    layout = "<" + "".join(f"{count}{codes[kind]}" for _, count, kind, _ in rows)
    assert struct.calcsize(layout) == HEADER.size
    assert [int(row[0]) for row in rows] == [
        struct.calcsize("<" + "".join(f"{c}{codes[k]}" for _, c, k, _ in rows[:i])) for i in range(len(rows))
    ]
    header = (ROOT / "vpp-plugin/core/include/lbrl/shm.h").read_text()
    members = re.search(r"typedef struct lbrl_shm_header \{(.*?)\} lbrl_shm_header_t", header, re.DOTALL)
    assert members is not None
    names = re.findall(r"^\s*(?:u?int\w+|char) (\w+)", members[1], re.MULTILINE)
    assert [name for *_, name in rows] == names


def test_columns_are_found_by_name(written: Path) -> None:
    layout = Layout(written)
    frame = layout.frame_offset(2)
    assert FRAME.unpack_from(layout.bytes, frame)[:3] == (2, 2_000, 43)
    assert layout.column(IN_FRAME, "n_flow", frame)[69] == 7
    assert layout.column(IN_FRAME, "bytes", frame)[0] == 1500
    assert layout.column(IN_FRAME, "generation", frame)[69] == 200
    assert layout.column(IN_FRAME, "active", frame).tolist() == [1, 1 << 5]
    assert layout.column(IN_HEADER, "generation")[0] == 1
    before = layout.frame_offset(1)
    assert layout.column(IN_FRAME, "bytes", before)[0] == 0


def test_samples_are_words_of_value_time_and_generation(written: Path) -> None:
    layout = Layout(written)
    base = layout.workers_offset + layout.worker_stride
    assert layout.column(IN_WORKER, "fct.seen", base)[69] == 1
    words = layout.column(IN_WORKER, "fct", base).reshape(SLOTS, 128)[69]
    (word,) = words[words != 0].tolist()
    assert struct.unpack("<f", struct.pack("<I", word & 0xFFFFFFFF)) == (0.25,)
    assert (word >> 32 & 0xFFFFFF, word >> 56) == (2 * 256, 200)


def test_channels_of_a_packet_share_a_cache_line_at_level_full(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    writer = penstock_core.FrameWriter(str(path), SLOTS, workers=2, feature_level="full", time_us=7)
    writer.open_slot(69, 200)
    for number, channel in enumerate(penstock_core.CHANNELS):
        writer.sample(69, channel.name, number + 0.5, 2_000_000, worker=1)
    layout = Layout(path)
    base = layout.workers_offset + layout.worker_stride
    assert layout.abi == 2
    lines = set()
    for number, channel in enumerate(penstock_core.CHANNELS):
        assert layout.column(IN_WORKER, f"{channel.name}.seen", base)[69] == 1
        words = layout.column(IN_WORKER, channel.name, base).reshape(SLOTS, 128)[69]
        (word,) = words[words != 0].tolist()
        assert struct.unpack("<f", struct.pack("<I", word & 0xFFFFFFFF)) == (number + 0.5,)
        if channel.name in ("flow_duration", "byte_p", "byte_f_on", "iat_p", "iat_ppf", "win", "d_win", "pt_gen"):
            field = layout.fields[IN_WORKER, channel.name]
            assert field.stride == 64
            lines.add((base + field.offset) // 64)
    assert len(lines) == 1


def test_names_are_those_of_the_definition_table(written: Path) -> None:
    layout = Layout(written)
    names = {name for place, name in layout.fields if place == IN_FRAME}
    assert names - {"sequence", "time_us", "actions_sequence", "active", "generation", "n_peers"} == {
        c.name for c in penstock_core.COUNTERS if c.recorded in ("off", "basic")
    }
    channels = {c.name for c in penstock_core.CHANNELS if c.level == "basic"}
    assert {name for place, name in layout.fields if place == IN_WORKER} == channels | {f"{c}.seen" for c in channels}


def test_reader_agrees_with_the_bytes(written: Path) -> None:
    reader = penstock_core.FrameReader(str(written))
    frame = reader.read()
    layout = Layout(written)
    offset = layout.frame_offset(frame.sequence)
    for name, column in frame.counters.items():
        assert column.dtype == np.int64
        assert column.tolist() == layout.column(IN_FRAME, name, offset).tolist()
    assert np.flatnonzero(frame.active).tolist() == [0, 69]
    assert (frame.time_us, frame.actions_sequence, reader.heartbeat_us) == (2_000, 43, 2_000)
    assert (reader.slots, reader.workers, reader.feature_level) == (SLOTS, 2, "basic")
    assert (reader.instance_id, reader.retired, reader.channels) == ("me", False, ("flow_duration", "fct"))


@pytest.mark.parametrize(("level", "channels"), [("off", 0), ("basic", 2), ("full", 13)])
def test_every_level_has_its_layout(tmp_path: Path, level: str, channels: int) -> None:
    path = tmp_path / "frames"
    writer = penstock_core.FrameWriter(str(path), 4, feature_level=level)
    writer.publish(1)
    reader = penstock_core.FrameReader(str(path))
    assert len(reader.channels) == channels
    frame = reader.read()
    assert frame.peers is not None
    assert frame.peers.tolist() == [-1] * 4  # no shared view
    assert len(frame.counters) == {"off": 10, "basic": 13, "full": 16}[level]


def test_actions_are_laid_out_alike(tmp_path: Path) -> None:
    path = tmp_path / "actions"
    writer = penstock_core.ActionsWriter(str(path), 3)
    weights, bases = np.array([1, 2.5, 0], np.float32), np.array([0.5, 0, 7], np.float32)
    assert writer.write(weights, np.array([1, 2, 3], np.uint8), 99, bases) == 1
    layout = Layout(path)
    assert layout.abi == 1
    assert struct.pack("<Q", layout.magic) == b"PNPSACT1"
    assert (layout.slots, layout.workers, layout.workers_offset) == (3, 0, 0)
    frame = layout.frame_offset(1)
    assert FRAME.unpack_from(layout.bytes, frame)[1] == 99
    assert layout.column(IN_FRAME, "weight", frame).tolist() == [1, 2.5, 0]
    assert layout.column(IN_FRAME, "generation", frame).tolist() == [1, 2, 3]
    assert layout.column(IN_FRAME, "base", frame).tolist() == [0.5, 0, 7]
    assert layout.column(IN_FRAME, "base_sequence", frame).tolist() == [1]
    writer.write(weights, np.array([1, 2, 3], np.uint8), 100)
    layout = Layout(path)
    assert layout.column(IN_FRAME, "base_sequence", layout.frame_offset(2)).tolist() == [0]


def test_objects_are_readable_by_their_group_only(written: Path) -> None:
    assert written.stat().st_mode & 0o137 == 0
