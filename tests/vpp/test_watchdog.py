"""Threads of VPP that make no progress: VPP ends, is started again, and takes its flows over."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support import vpp
from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, vip
from tests.support.lab import Lab, eventually
from tests.support.lab import lab as build_lab
from tests.support.threads import spin, stopped, thread_id
from tests.support.vpp_pod import Pod, pod_on

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

PATIENT = 120.0  # seconds: the watchdog counts no time of a busy machine
NEAR = "10.77.0.100"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := vpp.missing():
        pytest.skip(reason)
    vpp.plugin_directory()
    with build_lab("pn-vpw", 2) as built:
        yield built


@pytest.fixture
def pod(lab: Lab) -> Iterator[Pod]:
    with pod_on(lab) as found:
        found.prepare()
        found.start()
        found.control()
        yield found


def restarted(pod: Pod, pid: int) -> Callable[[], bool]:
    def check() -> bool:
        try:
            return pod.vpp_process() != pid and pod.answers()
        except (AssertionError, OSError, StopIteration, ValueError):
            return False  # between two processes

    return check


def test_a_main_thread_that_runs_in_circles(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab))
    pid = pod.vpp_process()
    with HttpConnection(lab, VIP_IPV4, timeout=120) as kept:
        name = kept.get()
        spin(pid)
        eventually(restarted(pod, pid), seconds=PATIENT)
        assert kept.get() == name
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_nothing_is_announced_while_the_main_thread_stands_still(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab, NEAR), announcement={"interfaces": ["c0"], "addresses": [NEAR]})
    assert get(lab, NEAR)
    pid = pod.vpp_process()
    with stopped(pid):
        eventually(lambda: "nothing is announced" in pod.log(), seconds=PATIENT)
        eventually(restarted(pod, pid), seconds=PATIENT)
    eventually(lambda: reaches(lab), seconds=PATIENT)


def reaches(lab: Lab) -> bool:
    lab.client.sh("ip neigh flush dev eth0")
    try:
        return get(lab, NEAR, timeout=1.0) in (b"s1", b"s2")
    except OSError:
        return False


def test_a_worker_that_stands_still(lab: Lab) -> None:
    with vpp.running_vpp(lab, workers=2) as running:
        pid = running.process.pid
        with stopped(thread_id(pid, "vpp_wk_1")):
            assert running.process.wait(PATIENT) == -signal.SIGABRT
        running.restart()
