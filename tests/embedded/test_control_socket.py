"""The control socket against hostile and mistaken clients; the data plane behind it is a recorder."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from penstock_embedded import client
from penstock_embedded.messages import (
    MAX_MESSAGE_BYTES,
    ApplyResult,
    DesiredState,
    Dump,
    Hello,
    Method,
    Stats,
)
from penstock_embedded.server import MAX_CLIENTS, ControlServer

KEY = "00112233445566778899aabbccddeeff"
SOURCE = {"address": "10.0.0.1", "port_first": 16384, "port_last": 28671}


class Recorder:
    """A handler that keeps what it was asked and answers with constants."""

    def __init__(self) -> None:
        self.applied: list[DesiredState] = []
        self.withdrawn = 0
        self.failure: Exception | None = None

    async def hello(self) -> Hello:
        return Hello(
            protocol_version=1,
            version="0",
            type="embedded",
            instance_id="i",
            boot_id="b",
            reattached_flows=0,
            generation=None,
        )

    async def apply(self, desired: DesiredState) -> ApplyResult:
        if self.failure is not None:
            raise self.failure
        self.applied.append(desired)
        return ApplyResult(generation=desired.generation, changed=True, vips=())

    async def dump(self) -> Dump:
        return Dump(instance_id="i", generation=None, vips=())

    async def stats(self) -> Stats:
        return Stats(
            instance_id="i",
            uptime_seconds=0,
            packets=0,
            forwarded=0,
            dropped={},
            flows=0,
            flow_capacity=0,
            half_open=0,
        )

    async def withdraw(self) -> None:
        self.withdrawn += 1


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def path(tmp_path: Path, recorder: Recorder) -> AsyncIterator[Path]:
    server = ControlServer(tmp_path / "run" / "control.sock", recorder, uids=frozenset({os.geteuid()}))
    await server.start()
    yield tmp_path / "run" / "control.sock"
    await server.stop()


async def exchange(path: Path, *lines: bytes) -> list[Any]:
    """Send lines on one connection and return the replies, until as many came or the server hung up."""
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_MESSAGE_BYTES)
    replies = []
    try:
        for line in lines:
            writer.write(line + b"\n")
            await writer.drain()
            replies.append(json.loads(await reader.readuntil(b"\n")))
    finally:
        writer.close()
    return replies


def request(method: str, params: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return json.dumps({"version": 1, "id": 7, "method": method, "params": params or {}} | changes).encode()


def announcing(address: Any) -> bytes:
    return request("apply", {"generation": 1, "scheduler_key": KEY, "announcement": {"addresses": [address]}})


async def test_each_method_answers_with_its_request_id(path: Path, recorder: Recorder) -> None:
    methods = ["hello", "dump", "stats", "withdraw"]
    replies = await exchange(path, *(request(method, id=n) for n, method in enumerate(methods)))
    assert [reply["id"] for reply in replies] == [0, 1, 2, 3]
    assert all(reply["error"] is None for reply in replies)
    assert recorder.withdrawn == 1


async def test_apply_reaches_the_handler_as_a_model(path: Path, recorder: Recorder) -> None:
    [reply] = await exchange(path, request("apply", {"generation": 3, "scheduler_key": KEY}))
    assert reply["result"] == {"generation": 3, "changed": True, "vips": [], "errors": []}
    assert recorder.applied == [DesiredState(generation=3, scheduler_key=KEY)]


@pytest.mark.parametrize(
    ("line", "code", "field"),
    [
        (b"", "malformed", ""),
        (b"{", "malformed", ""),
        (b"\xff\xfe", "malformed", ""),
        (b"[1]", "malformed", ""),
        (b"[" * 100_000, "malformed", ""),
        (rb'{"version":1,"id":7,"method":"apply","params":{"\ud800":1}}', "malformed", ""),
        (rb'{"version":1,"id":7,"method":"\u0061pply","params":{}}', "invalid", "generation"),
        (request("apply", version=2), "unsupported", "version"),
        (request("obey"), "malformed", "method"),
        (request("hello", id=-1), "malformed", "id"),
        (request("hello", extra=1), "malformed", "extra"),
        (request("apply", {"generation": 1}), "invalid", "scheduler_key"),
        (request("apply", {"generation": -1, "scheduler_key": KEY}), "invalid", "generation"),
        (request("apply", {"generation": 1, "scheduler_key": KEY, "vips": [{"id": "x"}]}), "invalid", "vips.0.id"),
        (request("apply", {"generation": 1, "scheduler_key": KEY, "": 1}), "invalid", '""'),
        (
            request("apply", {"generation": 1, "scheduler_key": KEY, "nat_sources": [SOURCE, SOURCE]}),
            "invalid",
            "nat_sources",
        ),
        (announcing("10.0.0"), "invalid", "announcement.addresses.0"),
        (announcing(1), "invalid", "announcement.addresses.0"),
        (announcing("::ffff:10.0.0.1"), "invalid", "announcement.addresses.0"),  # to the core the same as 10.0.0.1
        (announcing("fe80::1%eth0"), "invalid", "announcement.addresses.0"),
    ],
)
async def test_a_bad_request_is_answered_and_changes_nothing(
    path: Path, recorder: Recorder, line: bytes, code: str, field: str
) -> None:
    bad, good = await exchange(path, line, request("hello"))
    assert (bad["error"]["code"], bad["error"]["field"]) == (code, field)
    assert bad["error"]["fix"]
    assert good["error"] is None  # the connection goes on
    assert recorder.applied == []


async def test_a_request_that_fails_says_so_and_the_server_goes_on(path: Path, recorder: Recorder) -> None:
    recorder.failure = RuntimeError("no such device")
    bad, good = await exchange(path, request("apply", {"generation": 1, "scheduler_key": KEY}), request("hello"))
    assert bad["error"]["code"] == "internal"
    assert "no such device" in bad["error"]["message"]
    assert good["error"] is None


async def test_an_oversized_request_is_answered_and_hung_up_on(path: Path, recorder: Recorder) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"x" * (MAX_MESSAGE_BYTES + 2))
    reply = json.loads(await asyncio.wait_for(reader.readuntil(b"\n"), 10))
    assert reply["error"]["code"] == "too-large"
    assert await reader.read() == b""
    writer.close()
    assert recorder.applied == []
    [reply] = await exchange(path, request("hello"))
    assert reply["error"] is None


async def test_a_request_cut_off_by_a_leaving_client_is_not_acted_upon(path: Path, recorder: Recorder) -> None:
    _reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request("apply", {"generation": 1, "scheduler_key": KEY}))  # no newline
    writer.close()
    await exchange(path, request("hello"))
    assert recorder.applied == []


async def test_a_peer_with_another_user_id_is_refused(tmp_path: Path, recorder: Recorder) -> None:
    path = tmp_path / "control.sock"
    server = ControlServer(path, recorder, uids=frozenset({os.geteuid() + 4711}))
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    reply = json.loads(await reader.readuntil(b"\n"))
    assert reply["error"]["code"] == "forbidden"
    assert await reader.read() == b""
    writer.close()
    await server.stop()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
async def test_an_allowed_peer_of_another_user_is_served(open_directory: Path, recorder: Recorder) -> None:
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(sys.argv[2].encode() + b'\\n'); print(s.makefile().readline())"
    )
    path = open_directory / "control.sock"
    server = ControlServer(path, recorder, uids=frozenset({65534}))
    await server.start()
    arguments = ("-c", script, str(path), request("hello").decode())
    child = await asyncio.create_subprocess_exec("/usr/bin/env", "python3", *arguments, stdout=-1)
    output, _ = await child.communicate()
    await server.stop()
    assert json.loads(output)["result"]["type"] == "embedded"


async def test_several_clients_are_served_at_a_time_and_too_many_are_refused(path: Path) -> None:
    streams = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
    for reader, writer in streams:
        writer.write(request("hello") + b"\n")
        assert json.loads(await reader.readuntil(b"\n"))["error"] is None
    reader, writer = await asyncio.open_unix_connection(path)
    assert json.loads(await reader.readuntil(b"\n"))["error"]["code"] == "exhausted"
    for _, each in (*streams, (reader, writer)):
        each.close()


async def test_the_synchronous_client_returns_results_and_raises_errors(path: Path, recorder: Recorder) -> None:
    hello = await asyncio.to_thread(client.request, path, Method.HELLO)
    assert hello["type"] == "embedded"
    with pytest.raises(client.ControlError, match="scheduler_key"):
        await asyncio.to_thread(client.request, path, Method.APPLY, {"generation": 1})
    with pytest.raises(client.ControlError, match="penstock dataplane --probe"):
        client.request(path.with_name("absent"), Method.HELLO)


def test_the_synchronous_client_names_a_peer_that_is_no_data_plane(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 400 Bad Request\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(client.ControlError, match="not a reply of a data plane"):
            client.request(tmp_path / "s", Method.HELLO)
        thread.join()
