"""Real clients and servers on a wire: what the core makes of their packets is what the reference makes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import penstock_core
import pytest

from tests.support.clients import Background, HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, running_dataplane, vip
from tests.support.feature_reference import Features, Seen
from tests.support.feature_rig import Rig, assert_counted
from tests.support.lab import Lab, eventually
from tests.support.scenes import SCENES, Scene, stage
from tests.support.wire import Wire

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module", autouse=True)
def one_processor() -> Iterator[None]:
    """With more, a connection's packets overtake one another between where they are captured and the data plane."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client and one server with the balancer's kernel in between: nothing is balanced."""
    with stage("pn-cap") as built:
        yield built


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_core_and_reference_agree_on_captures(lab: Lab, scene: Scene, family: int, tmp_path: Path) -> None:
    address = scene.address(lab, family)
    capture = scene.capture(lab, family)
    for one_way in (False, True):
        rig = Rig(tmp_path / f"frames-{one_way}", address, scene.port, scene.protocol, one_way=one_way)
        rig.see(capture)
        rig.assert_equal()
        if not one_way:
            counters = rig.counters()
            assert all(counters[name] >= value for name, value in scene.least.items()), (counters, scene.least)
            assert counters["n_active"] == 0


@pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
def test_the_data_plane_counts_what_is_on_the_wire(lab: Lab, address: str) -> None:
    """Through TUN, offloads and threads: frames hold what the reference finds in a capture of the client's side."""
    with running_dataplane(lab) as dataplane:
        dataplane.apply(vip(lab, address, features="full"))
        frames = next(status.frames for status in dataplane.dump().vips)
        reader = penstock_core.FrameReader(str(dataplane.settings.shm_dir / frames.lstrip("/")))
        began = time.monotonic()
        with Wire(lab.client) as wire:
            transfers = [Background(lambda: len(get(lab, address, "/bytes/1000000"))) for _ in range(4)]
            with HttpConnection(lab, address) as connection:
                for path in ("/", "/slow/0.05", "/bytes/40000") * 3:
                    connection.get(path)
                connection.post(b"x" * 500_000)
            assert [transfer.result() for transfer in transfers] == [1_000_000] * 4
            time.sleep(0.3)
        expected = reference(wire.seen(80))
        wanted = dict(expected.counters)
        eventually(lambda: reader.read().counters["packets"][0] == wanted["packets"])
        time.sleep(0.3)  # a frame later
        assert_counted(reader.read(), expected, doubt=(time.monotonic() - began) / 2)
        for channel in penstock_core.CHANNELS:
            assert reader.samples(channel.name)[3][0, 0] == len(expected.samples[channel.name]), channel.name
        dataplane.withdraw()


def reference(capture: list[Seen]) -> Features:
    """What the reference finds in a capture."""
    found = Features()
    for seen in capture:
        found.see(seen)
    return found
