"""Four packet threads, and everything that goes on around them at once. Sanitizers watch these tests too."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import penstock_core
import pytest

from tests.support.clients import Background, HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import HTTP_PORT, UDP_PORT, Lab, eventually, take_out_of_gre
from tests.support.lab import lab as build_lab

pytestmark = [pytest.mark.netns, pytest.mark.sanitized]

BIG = 1_000_000
PATIENCE = 60.0  # seconds: a sanitizer takes a multiple, and after restarts TCP waits ever longer
ADDRESSES = (VIP_IPV4, VIP_IPV6)


@contextmanager
def meanwhile(*deeds: Callable[[], object]) -> Iterator[None]:
    """Do these again and again, each in a thread of its own; all must succeed each time."""
    ended = threading.Event()

    def repeat(deed: Callable[[], object]) -> None:
        while not ended.is_set():
            deed()

    with ExitStack() as stack:
        for deed in deeds:
            stack.callback(Background(partial(repeat, deed)).result, PATIENCE)
        stack.callback(ended.set)
        yield


def big_both_ways(lab: Lab, address: str, port: int = 80) -> None:
    with HttpConnection(lab, address, port, timeout=PATIENCE) as connection:
        assert connection.post(b"x" * BIG) == str(BIG).encode()
        assert len(connection.get(f"/bytes/{BIG}")) == BIG


def a_fragmented_datagram(lab: Lab, address: str) -> None:
    with udp_socket(lab, address, 53) as datagrams, contextlib.suppress(TimeoutError):
        data = bytes(range(256)) * 24
        datagrams.send(data)
        assert datagrams.recv(65535).partition(b" ")[2] == data


def backends(lab: Lab, address: str, port: int) -> list[dict[str, Any]]:
    family = "ipv6" if ":" in address else "ipv4"
    return [{"id": server.name, "address": getattr(server, family), "port": port} for server in lab.servers]


def write_weights(dataplane: RunningDataplane, random: np.random.Generator) -> None:
    """As an agent does, though far more often."""
    for status in dataplane.dump().vips:
        shm = dataplane.settings.shm_dir
        writer = penstock_core.ActionsWriter(str(shm / status.actions.lstrip("/")), status.slots)
        reader = penstock_core.FrameReader(str(shm / status.frames.lstrip("/")))
        eventually(partial(has_frame, reader))
        for _ in range(50):
            frame = reader.read()
            column = random.uniform(0.5, 2, len(frame.generation)).astype(np.float32)
            writer.write(column, frame.generation, penstock_core.boottime_us())


def has_frame(reader: penstock_core.FrameReader) -> bool:
    try:
        return reader.read().sequence > 0
    except penstock_core.ShmError as error:
        assert error.reason == "empty"
        return False


def draining(wanted: dict[str, Any], place: int) -> dict[str, Any]:
    """Return a VIP one of whose backends drains."""
    changed = [each | {"state": "draining"} if n == place else each for n, each in enumerate(wanted["backends"])]
    return wanted | {"backends": changed}


def test_weights_and_vips_change_under_traffic_of_every_kind(lab: Lab) -> None:
    with running_dataplane(lab, queues=4) as running:
        wanted = [vip(lab, address, features="full", scheduler={"type": "maglev"}) for address in ADDRESSES]
        for address in ADDRESSES:
            wanted.append(vip(lab, address, port=53, protocol="UDP", backends=backends(lab, address, UDP_PORT)))
        running.apply(*wanted)
        kept = [HttpConnection(lab, address, timeout=PATIENCE) for address in ADDRESSES for _ in range(16)]
        names = [connection.get() for connection in kept]
        kinds = (partial(get, path="/last", timeout=PATIENCE), big_both_ways, a_fragmented_datagram)
        random = np.random.default_rng(1)
        with meanwhile(*(partial(kind, lab, address) for kind in kinds for address in ADDRESSES)):
            for place in (0, 1, 2, 0, 1, 2):  # there is no third: none drains
                write_weights(running, random)
                running.apply(*(draining(each, place) for each in wanted))
                running.stats()
                assert [connection.get() for connection in kept] == names
        for connection in kept:
            connection.close()
        running.withdraw()


def test_threads_end_and_start_under_traffic(lab: Lab) -> None:
    with running_dataplane(lab, queues=4) as running:
        running.apply(*(vip(lab, address) for address in ADDRESSES))
        kept = [HttpConnection(lab, address, timeout=PATIENCE) for address in ADDRESSES for _ in range(16)]
        names = [connection.get() for connection in kept]
        with meanwhile(*(partial(big_both_ways, lab, address) for address in ADDRESSES)):
            for end in itertools.islice(itertools.cycle((running.stop, running.kill_child)), 4):
                end()
                if end == running.stop:
                    running.restart()
                eventually(running.answers, seconds=PATIENCE)
                assert [connection.get() for connection in kept] == names
        for connection in kept:
            connection.close()
        running.withdraw()


def test_super_packets_are_cut_for_tunnels() -> None:
    with build_lab("pn-four", 2) as lab, running_dataplane(lab, queues=4) as running:
        for server in lab.servers:
            take_out_of_gre(server, ADDRESSES)
        running.apply(*(vip(lab, address, HTTP_PORT, forwarding="GRE") for address in ADDRESSES))
        for address in ADDRESSES:
            big_both_ways(lab, address, HTTP_PORT)
        running.withdraw()
