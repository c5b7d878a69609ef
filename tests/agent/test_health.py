"""Health checks against real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent import health, probes
from penstock_agent.check_slots import CheckSlots
from penstock_agent.findings import NodeFindings
from penstock_agent.health import Health, HealthChecker, record
from penstock_agent.probes import PASSED, Check, CheckType, Outcome, Result, Target, parse_status, probe

from tests.support.waiting import StreamServer, eventually, running

LOOPBACK = ip_address("127.0.0.1")


class Server(StreamServer):
    """A server whose answer can be changed; None says nothing. Counts connections."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", closes=True):
        super().__init__()
        self.answer = answer
        self.closes = closes
        self.requests = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.port = 0

    async def listen(self):
        server = await asyncio.start_server(self.accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def handle(self, reader, writer):
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
                if not self.closes:
                    await reader.read()
        finally:
            self.open -= 1


def target(port, type_=CheckType.HTTP, **check):
    return Target(LOOPBACK, port, Check(type=type_, **check))


async def test_tcp_connect_suffices():
    async with Server() as server:
        assert await probe(target(server.port, CheckType.TCP)) == PASSED
    assert await probe(target(server.port, CheckType.TCP)) == Result(Outcome.FAILED, "Connection refused")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP status 503 is not expected"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP/1"),
        (b"", "the answer is not HTTP/1"),
        (b"x" * 5000, "the answer is not HTTP/1"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 No\r\n\r\n", "HTTP status 503 is not expected"),
        (b"HTTP/1.1 102 Processing\n\n" * 3 + b"HTTP/1.1 204 No Content\n\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 300 + b"\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 3000, "the answer is not HTTP/1"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "the answer is not HTTP/1"),
        (b"HTTP/1.1 100 Continue\r\n\r\nSSH-2.0\r\n", "the answer is not HTTP/1"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP status 101 is not expected"),
    ],
)
async def test_http_status_decides(answer, problem):
    async with Server(answer) as server:
        wanted = Result(Outcome.FAILED, problem) if problem else PASSED
        assert await probe(target(server.port, path="/healthz?full=1")) == wanted
        assert server.requests[0].startswith(b"GET /healthz?full=1 HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_expected_statuses_are_the_users():
    async with Server(b"HTTP/1.1 401 Unauthorized\r\n\r\n") as server:
        assert await probe(target(server.port, statuses=((200, 200), (401, 401)))) == PASSED


async def test_silence_is_bounded():
    async with Server(answer=None) as server:
        late = Result(Outcome.LATE, "no answer within 0.1 s")
        assert await probe(target(server.port, timeout=0.1)) == late
    async with Server(answer=b"HTTP/1.1 100 Continue\r\n\r\n", closes=False) as server:
        assert await probe(target(server.port, timeout=0.1)) == late


def test_thresholds_both_ways():
    state, check = Health(), Check(unhealthy_threshold=3, healthy_threshold=2)
    results = ["down", "down", "", "down", "down", "down", "", "down", "", ""]
    assert [record(state, check, Result(Outcome.FAILED, error) if error else PASSED) for error in results] == [
        False, False, False, False, False, True, False, False, False, True,
    ]  # fmt: skip
    assert state.healthy


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK\r", 200),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/2 200", None),
        (b"HTTP/1.1 20x OK", None),
        (b"HTTP/1.1", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_status_lines(line, status):
    assert parse_status(line) == status


async def test_failure_and_recovery_are_noticed():
    changes: Counter[str] = Counter()
    checker = HealthChecker(lambda: changes.update(["change"]), random_source=random.Random(1))
    async with Server() as server:
        subject = target(server.port, CheckType.TCP, interval=0.02, unhealthy_threshold=2, healthy_threshold=2)
        checker.set_targets({subject: "a"})
        async with running(checker.run()):
            await eventually(lambda: checker.states[subject].checked)
            assert checker.healthy(subject)
            await server.stop()
            await eventually(lambda: not checker.healthy(subject))
            assert checker.states[subject].error == "Connection refused"
            await server.start()
            await eventually(lambda: checker.healthy(subject))
            assert changes["change"] == 2


async def test_what_failed_before_a_restart_has_to_prove_itself():
    checker = HealthChecker(lambda: None, random_source=random.Random(1))
    async with Server() as server:
        subject = target(server.port, CheckType.TCP, interval=0.02)
        checker.set_targets({subject: "a"}, failed=[subject])
        assert not checker.healthy(subject)
        async with running(checker.run()):
            await eventually(lambda: checker.healthy(subject))


async def test_an_edited_check_keeps_what_was_known():
    checker = HealthChecker(lambda: None)
    before, after = target(1, interval=2.0), target(1, interval=5.0)
    checker.set_targets({before: "a"}, failed=[before])
    checker.set_targets({after: "a"})
    assert not checker.healthy(after)
    assert list(checker.states) == [after]


async def test_one_server_with_one_check_is_asked_once():
    checker = HealthChecker(lambda: None, random_source=random.Random(1))
    async with Server() as server:
        checker.set_targets({target(server.port, interval=30.0): "a", target(server.port, interval=30.0): "b"})
        async with running(checker.run()):
            await eventually(lambda: checker.checks == 1)
        assert server.connections == 1


def silent_targets(server, count):
    return [target(server.port, path=f"/{number}", timeout=0.1, interval=0.2) for number in range(count)]


async def test_concurrency_is_bounded():
    checker = HealthChecker(lambda: None, slots=CheckSlots(4), random_source=random.Random(1))
    async with Server(answer=None) as silent:
        checker.set_targets(dict.fromkeys(silent_targets(silent, 12), "a"))
        async with running(checker.run()):
            await eventually(lambda: checker.checks >= 12)
        assert silent.most_open <= 4
        assert checker.lag > 0


async def test_servers_that_hang_do_not_delay_checks_of_another_vip():
    """With one queue for all, the 400 checks that hang would take some seconds each round."""
    checker = HealthChecker(lambda: None, slots=CheckSlots(4), random_source=random.Random(1))
    async with Server(answer=None) as silent, Server() as server:
        hanging = [target(silent.port, path=f"/{number}", timeout=30.0, interval=30.0) for number in range(400)]
        subject = target(server.port, CheckType.TCP, interval=0.02, unhealthy_threshold=2, healthy_threshold=2)
        checker.set_targets(dict.fromkeys(hanging, "a") | {subject: "b"})
        async with running(checker.run()):
            await eventually(lambda: silent.open == 3)  # its own slot and the common ones
            await server.stop()
            await eventually(lambda: not checker.healthy(subject))
            await server.start()
            await eventually(lambda: checker.healthy(subject))
        assert silent.most_open == 3


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=200), st.integers(2, 20))
def test_every_owner_has_a_slot_whatever_the_others_hold(steps, total):
    slots = CheckSlots(total)
    running_checks: Counter[str] = Counter()
    slots.set_owners(6)
    for owner, starts in steps:
        if starts and slots.may_start(owner):
            slots.start(owner)
            running_checks[owner] += 1
        elif not starts and running_checks[owner]:
            slots.end(owner)
            running_checks[owner] -= 1
        assert running_checks.total() <= total // 2 + 6 * slots.reserved
        for other in "abcdef":
            if running_checks[other] < slots.reserved:
                assert slots.may_start(other)


async def test_a_late_check_of_a_server_that_answers_its_clients_changes_nothing():
    answering = True
    checker = HealthChecker(lambda: None, answered_since=lambda target, time: answering, random_source=random.Random(1))
    async with Server(answer=None) as server:
        subject = target(server.port, timeout=0.02, interval=0.02, unhealthy_threshold=2)
        checker.set_targets({subject: "a"})
        async with running(checker.run()):
            await eventually(lambda: checker.outweighed >= 4)
            assert checker.healthy(subject)
            assert "answers clients" in checker.states[subject].error
            answering = False
            await eventually(lambda: not checker.healthy(subject))
            assert checker.states[subject].late


async def test_a_refused_check_counts_although_the_server_answers_its_clients():
    checker = HealthChecker(lambda: None, answered_since=lambda target, time: True, random_source=random.Random(1))
    async with Server() as server:
        subject = target(server.port, CheckType.TCP, interval=0.02, unhealthy_threshold=2)
        await server.stop()
        checker.set_targets({subject: "a"})
        async with running(checker.run()):
            await eventually(lambda: not checker.healthy(subject))
        assert not checker.states[subject].late


async def test_a_target_that_left_and_came_back_is_checked_once_an_interval():
    checker = HealthChecker(lambda: None, random_source=random.Random(1))
    async with Server() as server:
        subject = target(server.port, CheckType.TCP, interval=0.3)
        for _ in range(20):
            checker.set_targets({subject: "a"})
            checker.set_targets({})
        checker.set_targets({subject: "a"})
        async with running(checker.run()):
            await eventually(lambda: checker.checks >= 3)
        assert checker.checks <= 4


async def test_targets_that_leave_are_not_asked_again():
    checker = HealthChecker(lambda: None, random_source=random.Random(1))
    async with Server() as server:
        subject = target(server.port, interval=0.02)
        checker.set_targets({subject: "a"})
        async with running(checker.run()):
            await eventually(lambda: server.connections >= 2)
            checker.set_targets({})
            assert checker.healthy(subject)
            asked = server.connections
            await asyncio.sleep(0.1)
            assert server.connections <= asked + 1


@contextlib.contextmanager
def no_descriptor_left():
    """Lower this process's limit of open files to those that it has open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as last:
        free = last.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("failed", [False, True], ids=["healthy", "failed"])
async def test_no_descriptor_left_changes_no_backend(failed):
    findings = NodeFindings()
    checker = HealthChecker(lambda: None, random_source=random.Random(1), findings=findings)
    async with Server() as server:
        subject = target(server.port, interval=0.02, unhealthy_threshold=1, healthy_threshold=1)
        async with running(checker.run()):
            with no_descriptor_left():
                checker.set_targets({subject: "a"}, failed=[subject] if failed else [])
                await eventually(lambda: checker.unmade >= 5)
            assert checker.checks == 0
            assert checker.healthy(subject) is not failed
            assert "Too many open files; raise the limit of open files" in findings.texts[0]
            await eventually(lambda: checker.checks >= 1 and checker.healthy(subject))


async def test_the_finding_ends_when_checks_can_be_made(monkeypatch):
    monkeypatch.setattr(health, "UNMADE_SECONDS", 0.2)
    findings = NodeFindings()
    checker = HealthChecker(lambda: None, random_source=random.Random(1), findings=findings)
    async with Server() as server:
        subject = target(server.port, interval=0.02)
        checker.set_targets({subject: "a"})
        async with running(checker.run()):
            with no_descriptor_left():
                await eventually(lambda: findings.texts)
            await eventually(lambda: not findings.texts)


@pytest.mark.parametrize("raised", [OSError(number, "") for number in probes.OWN_ERRORS] + [MemoryError(), KeyError()])
async def test_errors_of_this_machine_are_no_result(monkeypatch, raised):
    async def fail(*_):
        raise raised

    findings = NodeFindings()
    checker = HealthChecker(lambda: None, random_source=random.Random(1), findings=findings)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", fail)
    subject = target(9, interval=0.02, unhealthy_threshold=1)
    checker.set_targets({subject: "a"})
    async with running(checker.run()):
        await eventually(lambda: checker.unmade >= 3)
    assert checker.healthy(subject)
    assert not checker.states[subject].checked
    assert len(findings.texts) == 1
