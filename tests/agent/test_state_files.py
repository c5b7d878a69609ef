"""State files on disks that are full, read-only, gone or damaged: the agent goes on, and names what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_agent import files
from penstock_agent.files import StateStore, seal
from penstock_agent.findings import NodeFindings
from pydantic import BaseModel

from tests.support.disks import disk
from tests.support.waiting import eventually, running

NAME = "state.json"


class Number(BaseModel):
    """A state."""

    value: int


@pytest.fixture
def findings():
    return NodeFindings()


@pytest.fixture
def store(tmp_path, findings, monkeypatch):
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(files, "SAVE_SECONDS", 0.05)
    return StateStore(tmp_path / "state", findings)


def names_in(directory):
    return [path.name for path in directory.iterdir()]


def kept(store):
    return StateStore(store._directory, NodeFindings()).load(NAME, Number)


async def test_what_is_put_is_there_after_a_restart(store, findings):
    assert store.load(NAME, Number) is None
    assert not store.found(NAME)
    async with running(store.run()):
        store.put(NAME, Number(value=1))
        store.put(NAME, Number(value=2))
        await eventually(lambda: kept(store) == Number(value=2))
    await store.remove(NAME)
    assert kept(store) is None
    assert findings.texts == ()


async def test_a_full_disk_is_a_finding_until_there_is_room(store, findings):
    with disk(store._directory) as full:
        await store.save(NAME, Number(value=1))
        full.fill()
        async with running(store.run()):
            store.put(NAME, Number(value=2))
            await eventually(lambda: findings.texts)
            assert "No space left on device; the last good state is not kept" in findings.texts[0]
            assert kept(store) == Number(value=1)
            full.empty()
            await eventually(lambda: not findings.texts)
            assert kept(store) == Number(value=2)
        assert names_in(full.path) == [NAME]


async def test_a_slow_disk_holds_nothing_else_up(store, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda descriptor: answers.wait(10))
    store.put(NAME, Number(value=1))
    writing = asyncio.create_task(store.flush())
    await asyncio.sleep(0.05)
    assert not writing.done()
    answers.set()
    await writing
    assert kept(store) == Number(value=1)


async def test_a_read_only_disk_is_a_finding_until_it_is_writable(store, findings):
    with disk(store._directory) as drive:
        await store.save(NAME, Number(value=1))
        drive.remount("ro")
        await store.save(NAME, Number(value=2))
        await store.remove(NAME)
        assert "Read-only file system" in findings.texts[0]
        drive.remount("rw")
        async with running(store.run()):
            await eventually(lambda: not findings.texts)
        assert kept(store) is None


async def test_a_state_directory_that_is_a_file_is_a_finding(store, findings):
    store._directory.write_text("")
    assert store.load(NAME, Number) is None
    await store.save(NAME, Number(value=1))
    assert str(store._directory) in findings.texts[0]


def damage_bytes(path):
    path.write_bytes(b"\xff\x00")


def damage_directory(path):
    path.mkdir()


def damage_link(path):
    path.symlink_to("/etc/passwd")


def damage_fifo(path):
    os.mkfifo(path)


def damage_owner(path):
    path.write_bytes(seal(b'{"value": 1}'))
    os.chown(path, 12345, 12345)


def damage_size(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


def damage_depth(path):
    path.write_bytes(seal(b"[" * 100_000 + b"]" * 100_000))


def damage_content(path):
    path.write_bytes(seal(b'{"value": 1}').replace(b"1}", b"2}"))


def damage_format(path):
    path.write_bytes(seal(b'{"value": 1}').replace(b'"format":1', b'"format":2'))


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of another owner is made as root")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.removeprefix("damage_"))
async def test_what_is_no_state_file_is_set_aside_and_named(store, findings, damage, capsys):
    store._directory.mkdir()
    path = store._directory / NAME
    damage(path)
    assert store.load(NAME, Number) is None
    assert store.found(NAME)  # something may have been in force
    assert str(path) in capsys.readouterr().out
    assert names_in(store._directory) == [f"{NAME}.damaged"]
    await store.save(NAME, Number(value=3))
    assert kept(store) == Number(value=3)
    assert findings.texts == ()


async def test_a_directory_that_comes_into_the_way_is_set_aside(store, findings):
    (store._directory / NAME / "x").mkdir(parents=True)
    await store.save(NAME, Number(value=3))
    assert kept(store) == Number(value=3)
    assert findings.texts == ()


def test_files_set_aside_are_bounded(store):
    store._directory.mkdir()
    for _ in range(20):
        (store._directory / NAME).write_text("damaged")
        assert store.load(NAME, Number) is None
    assert len(names_in(store._directory)) == 5


def test_temporary_files_of_a_killed_process_are_removed(store):
    store._directory.mkdir()
    (store._directory / f".{NAME}.abc.tmp").write_text("half")
    store.load(NAME, Number)
    assert names_in(store._directory) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_content_is_survived(tmp_path, content):
    directory = tmp_path / "state"
    directory.mkdir(exist_ok=True)
    for each in (content, seal(content)):
        (directory / NAME).write_bytes(each)
        loaded = StateStore(directory, NodeFindings()).load(NAME, Number)
        assert loaded is None or json.loads(content)["value"] == loaded.value
