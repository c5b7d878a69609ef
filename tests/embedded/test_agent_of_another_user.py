"""A data plane as in its pod, root without capabilities but for the network, beside an agent that is not root."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import penstock_core
import pytest
from penstock_embedded import client
from penstock_embedded.messages import Method

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, RunningDataplane, running_dataplane, vip
from tests.support.lab import Lab, eventually
from tests.support.other_user import AGENT_ID, as_agent

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")]

KEPT = "-all,+net_admin,+net_raw"
POWERS = ("setpriv", f"--bounding-set={KEPT}", f"--inh-caps={KEPT}", "--no-new-privs", f"--groups={AGENT_ID}")


@pytest.fixture
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory as the kubelet makes it, with a file that an agent of uid 0 left there."""
    path = Path("/var/lib") / f"penstock-test-{os.getpid()}"
    path.mkdir()
    (path / "link.json").write_text("{}")
    (path / "link.json").chmod(0o600)
    (path / "outside").symlink_to("/etc/passwd")
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.fixture
def running(lab: Lab, state_dir: Path) -> Iterator[RunningDataplane]:
    settings = {"group": AGENT_ID, "allowed_uids": (AGENT_ID,), "agent_state_dir": state_dir}
    with running_dataplane(lab, prefix=POWERS, **settings) as found:
        found.settings.shm_dir.parent.chmod(0o755)
        yield found
        found.withdraw()


def path_of(running: RunningDataplane, name: str) -> Path:
    return running.settings.shm_dir / name.lstrip("/")


def test_the_agent_steers_by_its_own_user(lab: Lab, running: RunningDataplane) -> None:
    running.apply(vip(lab, scheduler={"type": "sed"}))
    status = running.dump().vips[0]
    frames, actions = (path_of(running, name) for name in (status.frames, status.actions))
    slot = {backend.id: backend.slot for backend in status.backends}

    def steer() -> str:
        os.umask(0o077)  # must not matter
        hello = client.request(running.settings.socket_path, Method.HELLO)
        frame = penstock_core.FrameReader(str(frames)).read()
        writer = penstock_core.ActionsWriter(str(actions), status.slots)
        weights = np.zeros(len(frame.generation), dtype=np.float32)
        weights[slot["s2"]] = 1.0
        writer.write(weights, frame.generation, penstock_core.boottime_us())
        return str(hello["instance_id"])

    assert as_agent(steer) == running.hello().instance_id
    eventually(lambda: {each.id: each.weight for each in running.dump().vips[0].backends} == {"s1": 0.0, "s2": 1.0})
    assert {get(lab, VIP_IPV4) for _ in range(6)} == {b"s2"}


def test_the_agent_keeps_state_where_root_did(state_dir: Path, running: RunningDataplane) -> None:
    def keep() -> str:
        before = (state_dir / "link.json").read_text()
        (state_dir / "new").write_text("new")
        (state_dir / "new").rename(state_dir / "link.json")
        return before

    before = Path("/etc/passwd").stat()
    assert as_agent(keep) == "{}"
    assert (state_dir / "link.json").read_text() == "new"
    after = Path("/etc/passwd").stat()
    assert (after.st_gid, after.st_mode) == (before.st_gid, before.st_mode)  # no link is followed


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))


def test_no_other_user_gets_in(lab: Lab, running: RunningDataplane, state_dir: Path) -> None:
    running.apply(vip(lab))
    stranger = AGENT_ID + 1
    with pytest.raises(PermissionError):
        as_agent(lambda: connect(running.settings.socket_path), user=stranger)
    for directory in (running.settings.shm_dir, state_dir):
        with pytest.raises(PermissionError):
            as_agent(partial(os.listdir, directory), user=stranger)


@pytest.fixture
def files(lab: Lab, running: RunningDataplane) -> list[Path]:
    """All files of the data plane: arena, state, frames."""
    running.apply(vip(lab))
    found = [path for path in running.settings.shm_dir.iterdir() if path.stat().st_uid == 0]
    assert len(found) >= 3
    return found


def replace(path: Path) -> None:
    other = path.with_name("mine")
    other.write_bytes(b"x" * 4096)
    other.rename(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncate": lambda path: os.truncate(path, 0),
    "write": lambda path: path.open("r+b").close(),
    "remove": os.unlink,
    "replace": replace,
    "rename": lambda path: path.rename(path.with_name("elsewhere")),
    "chmod": lambda path: path.chmod(0o666),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_agent_damages_nothing_of_the_data_plane(
    lab: Lab, running: RunningDataplane, files: list[Path], damage: Callable[[Path], object]
) -> None:
    pid = running.child()
    for path in files:
        before = path.stat()
        with pytest.raises(PermissionError):
            as_agent(partial(damage, path))
        assert path.stat() == before or path.stat().st_ino == before.st_ino
    assert running.child() == pid
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_the_agent_reads_frames_and_nothing_else(files: list[Path]) -> None:
    for path in files:
        if path.suffix == ".frames":
            assert as_agent(path.read_bytes)[:8] == b"PNPSFRM1"
        else:
            with pytest.raises(PermissionError):
                as_agent(path.read_bytes)


def test_actions_that_are_cut_under_the_data_plane_end_nobody(lab: Lab, running: RunningDataplane) -> None:
    running.apply(vip(lab))
    status = running.dump().vips[0]
    actions = path_of(running, status.actions)
    pid = running.child()

    def cut() -> None:
        penstock_core.ActionsWriter(str(actions), status.slots)
        whole = actions.read_bytes()
        for size in (0, 1, 4096, len(whole) - 1):
            for _ in range(200):
                os.truncate(actions, size)
                actions.write_bytes(whole)

    as_agent(cut)
    assert running.child() == pid
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def lay_file(path: Path) -> None:
    path.write_bytes(b"PNPS" * 4096)


def lay_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


LAID: dict[str, Callable[[Path], object]] = {
    "file": lay_file,
    "directory": lay_directory,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("lay", LAID.values(), ids=LAID)
def test_what_the_agent_lays_at_names_of_the_data_plane_keeps_it_from_nothing(
    lab: Lab, running: RunningDataplane, lay: Callable[[Path], object]
) -> None:
    running.apply(vip(lab))
    running.withdraw()
    names = (running.settings.arena_path, running.settings.state_path)
    for path in names:
        assert not path.exists()
        as_agent(partial(lay, path))
    running.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4, timeout=30) as kept:
        name = kept.get()
        running.kill_child()
        eventually(running.answers)
        assert running.hello().reattached_flows >= 1
        assert kept.get() == name
    for path in names:
        status = path.lstat()
        assert (status.st_uid, stat.S_ISREG(status.st_mode)) == (0, True)


def test_stray_actions_are_swept(lab: Lab, running: RunningDataplane) -> None:
    running.apply(vip(lab))
    used = path_of(running, running.dump().vips[0].actions)
    stray = running.settings.shm_dir / f"penstock.{'ab' * 8}.actions"

    def write() -> None:
        for path in (used, stray):
            penstock_core.ActionsWriter(str(path), 16)

    as_agent(write)
    eventually(lambda: not stray.exists(), seconds=60)
    assert used.exists()
