"""Threads that make no progress: noticed, not announced any more, and replaced. Slow ones are left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from penstock_embedded.client import ControlError

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, RunningDataplane, running_dataplane, vip
from tests.support.lab import Lab, eventually
from tests.support.threads import spin, stopped, thread_id

pytestmark = pytest.mark.netns

NEAR = "10.77.0.100"
PATIENT = 120.0  # seconds: the watchdog counts no time of a busy machine


def is_stalled(dataplane: RunningDataplane) -> bool:
    try:
        dataplane.hello()
        dataplane.stats()
    except ControlError as error:
        return error.error.code == "stalled"
    return False


def restarted(dataplane: RunningDataplane, pid: int) -> Callable[[], bool]:
    def check() -> bool:
        try:
            return dataplane.child() != pid and dataplane.answers()
        except (AssertionError, OSError):
            return False  # between two processes

    return check


@pytest.mark.parametrize("thread", ["packets-0", "control"])
def test_a_thread_that_stops_fails_the_probe_and_is_replaced_with_its_process(
    lab: Lab, balanced: RunningDataplane, thread: str
) -> None:
    pid = balanced.child()
    with HttpConnection(lab, VIP_IPV4, timeout=60) as kept:
        name = kept.get()
        with stopped(thread_id(pid, thread)):
            eventually(lambda: is_stalled(balanced), seconds=PATIENT)
            eventually(restarted(balanced, pid), seconds=PATIENT)
        assert balanced.hello().reattached_flows >= 1
        assert kept.get() == name
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_a_thread_that_runs_in_circles_is_replaced_with_its_process(lab: Lab, balanced: RunningDataplane) -> None:
    pid = balanced.child()
    with HttpConnection(lab, VIP_IPV4, timeout=60) as kept:
        name = kept.get()
        spin(thread_id(pid, "packets-0"))
        eventually(restarted(balanced, pid), seconds=PATIENT)
        assert kept.get() == name


def test_one_of_several_packet_threads(lab: Lab) -> None:
    with running_dataplane(lab, queues=3) as running:
        running.apply(vip(lab))
        pid = running.child()
        with stopped(thread_id(pid, "packets-2")):
            eventually(restarted(running, pid), seconds=PATIENT)
        assert get(lab, VIP_IPV4) in (b"s1", b"s2")
        running.withdraw()


def test_nothing_is_announced_while_a_thread_makes_no_progress(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, NEAR), announcement={"interfaces": ["c0"], "addresses": [NEAR]})
    assert get(lab, NEAR)
    pid = dataplane.child()
    with stopped(thread_id(pid, "control")):
        eventually(lambda: not is_found(lab), seconds=PATIENT)
        eventually(restarted(dataplane, pid), seconds=PATIENT)
    eventually(lambda: is_found(lab))
    assert get(lab, NEAR)


def is_found(lab: Lab) -> bool:
    """Tell whether somebody answers for the address on the client's wire."""
    lab.client.sh("ip neigh flush dev eth0")
    with contextlib.suppress(OSError):
        get(lab, NEAR, timeout=1.0)
    return "lladdr" in lab.client.sh("ip neigh show dev eth0 to " + NEAR)


def test_a_process_that_was_stopped_as_a_whole_goes_on(lab: Lab, balanced: RunningDataplane) -> None:
    pid = balanced.child()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(7)
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(2)
    assert balanced.child() == pid
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_a_thread_without_a_processor_is_left_alone(balanced: RunningDataplane) -> None:
    pid = balanced.child()
    thread, processor = thread_id(pid, "packets-0"), min(os.sched_getaffinity(0))
    os.sched_setaffinity(thread, {processor})
    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    spinning = ["taskset", "-c", str(processor), "python3", "-c", "while True: pass"]
    hogs = [subprocess.Popen(spinning) for _ in range(3)]
    try:
        time.sleep(12)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(thread, os.sched_getaffinity(0))
    assert balanced.child() == pid
    eventually(balanced.answers)
