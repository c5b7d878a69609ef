"""Server and client of the laboratory against each other, on loopback in a namespace."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.netns import Namespace
from tools.lab import programs
from tools.lab.requests import FAILED, UNFINISHED, Records, read_records

pytestmark = pytest.mark.netns

PORT = 8080


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace("pn-lab") as built:
        yield built


@contextmanager
def serving(
    namespace: Namespace, *, port: int = PORT, threads: int = 16, limit: int = 0, backlog: int = 0
) -> Iterator[subprocess.Popen[Any]]:
    arguments = ["127.0.0.1", port, 7, threads, limit, backlog]
    server = namespace.popen([str(programs.server()), *map(str, arguments)], stdout=-1, stderr=-1)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield server
    finally:
        server.kill()
        server.wait()


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process, as its control group would count it."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9


def connect(namespace: Namespace) -> socket.socket:
    return namespace.run(socket.create_connection, ("127.0.0.1", PORT), 20)


def ask(connection: socket.socket, work: float = 0.0, io: float = 0.0, size: int = 200) -> bytes:
    connection.sendall(f"GET /{work * 1e9:.0f}/{io * 1e9:.0f}/{size} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
    received = b""
    while len(received) < size:
        part = connection.recv(65536)
        if not part:
            break
        received += part
    return received


def test_a_request_costs_the_processor_time_that_it_names(namespace: Namespace) -> None:
    with serving(namespace) as server, connect(namespace) as connection:
        ask(connection)
        before = cpu_seconds(server.pid)
        for _ in range(20):
            ask(connection, work=0.01)
        # What sending costs is not part of the work.
        assert 0.2 <= cpu_seconds(server.pid) - before < 0.22


def test_a_response_has_its_size_and_names_the_server(namespace: Namespace) -> None:
    with serving(namespace), connect(namespace) as connection:
        for size in (1000, 100_000):
            response = ask(connection, size=size)
            assert len(response) == size
            head, _, body = response.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None
            assert int(length[1]) == len(body)
            assert b"Server: 7\r\n" in head


def test_requests_beyond_limit_and_backlog_are_reset(namespace: Namespace) -> None:
    with serving(namespace, limit=1, backlog=1), ThreadPoolExecutor(3) as threads:
        connections = [connect(namespace) for _ in range(3)]
        answers = [threads.submit(ask, connection, io=1.0) for connection in connections]
        errors = [answer.exception(20) for answer in answers]
        for connection in connections:
            connection.close()
    assert [type(error) for error in errors if error is not None] == [ConnectionResetError]


def test_threads_that_are_not_enough_end_the_server(namespace: Namespace) -> None:
    with serving(namespace, threads=1) as server, connect(namespace):
        _, errors = server.communicate(timeout=20)
        assert "all 1 threads have a connection" in errors


def run_client(namespace: Namespace, plan: str, tmp_path: Path, until: float = 20.0, port: int = PORT) -> Records:
    records = tmp_path / "records"
    (tmp_path / "plan").write_text(plan)
    with (tmp_path / "plan").open() as lines, records.open("w") as out:
        command = [str(programs.client()), "127.0.0.1", str(port), str(until)]
        assert namespace.popen(command, stdin=lines, stdout=out).wait(60) == 0
    return read_records(records)


def test_the_client_sends_its_plan(namespace: Namespace, tmp_path: Path) -> None:
    plan = (
        "0.01 1 200 1000 0 2  0.001 0 0.05  0.002 0.02 0\n"
        "0.02 1 300 50000 0.1 1  0.001 0 0\n"
        "0.02 2 200 1000 0 1  0.001 0 0\n"
    )  # fmt: skip
    with serving(namespace):
        found = run_client(namespace, plan, tmp_path)
    assert found.connection.tolist() == [0, 0, 1, 2]
    assert found.request.tolist() == [0, 1, 0, 0]
    assert found.server.tolist() == [7] * 4
    assert found.intended[[0, 2, 3]].tolist() == [0.01, 0.02, 0.02]
    assert found.intended[1] == pytest.approx(found.done[0] + 0.05)
    assert (found.lateness >= 0).all()
    assert (found.duration >= [0.001, 0.022, 0.001, 0.001]).all()
    assert (found.seen >= found.done).all()


def test_the_client_notes_what_failed(namespace: Namespace, tmp_path: Path) -> None:
    found = run_client(namespace, "0 1 200 1000 0 1  0.001 0 0\n", tmp_path, port=PORT + 1)
    assert found.server.tolist() == [FAILED]
    assert np.isnan(found.done).all()


def test_the_client_notes_what_is_not_done_at_the_end(namespace: Namespace, tmp_path: Path) -> None:
    with serving(namespace):
        found = run_client(
            namespace, "0 1 200 1000 0 1  0.001 60 0\n5 1 200 1000 0 1  0.001 0 0\n", tmp_path, until=0.5
        )
    assert found.connection.tolist() == [0]  # the other one was not sent
    assert found.server.tolist() == [UNFINISHED]
