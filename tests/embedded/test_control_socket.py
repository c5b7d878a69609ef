"""The control socket against hostile and mistaken clients; the data plane behind it is a recorder."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
import time
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
        self.hold: asyncio.Event | None = None
        self.busy = asyncio.Event()
        self.waiting = 0

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
        if self.hold is not None:
            self.waiting += 1
            if self.waiting == MAX_CLIENTS:
                self.busy.set()
            await self.hold.wait()
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


async def test_idle_connections_keep_nobody_out(path: Path) -> None:
    streams = [await asyncio.open_unix_connection(path) for _ in range(3 * MAX_CLIENTS)]
    streams[-1][1].write(request("hello")[:20])  # begun, and never ended
    [reply] = await exchange(path, request("hello"))
    assert reply["error"] is None
    assert await asyncio.wait_for(streams[0][0].read(), 10) == b""  # the oldest were closed
    for _, writer in streams:
        writer.close()


async def test_replies_that_nobody_reads_keep_nobody_out(path: Path) -> None:
    streams = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
    for _, writer in streams:
        writer.write((request("hello") + b"\n") * 20_000)
    for _ in range(3):
        [reply] = await exchange(path, request("hello"))
        assert reply["error"] is None
    for _, writer in streams:
        writer.transport.abort()


async def test_more_requests_at_once_than_a_user_may_have_are_refused(path: Path, recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    apply = request("apply", {"generation": 1, "scheduler_key": KEY})
    busy = [asyncio.create_task(exchange(path, apply)) for _ in range(MAX_CLIENTS)]
    await recorder.busy.wait()
    reader, writer = await asyncio.open_unix_connection(path)
    assert json.loads(await reader.readuntil(b"\n"))["error"]["code"] == "exhausted"
    writer.close()
    recorder.hold.set()
    assert all(reply["error"] is None for [reply] in await asyncio.gather(*busy))


def full_of_errors(line: bytes) -> bytes:
    """Return a request of 6 MB whose parameters are many times `line`."""
    body = b",".join([line] * (6_000_000 // (len(line) + 1)))
    return b'{"version":1,"id":7,"method":"apply","params":{"generation":1,"scheduler_key":"%s",%s}}' % (
        KEY.encode(),
        b'"vips":[%s]' % body,
    )


VIP_WITH_BACKENDS = b'{"id":"%s","key":"k","addresses":["203.0.113.1"],"port":80,"backends":[%s]}' % (
    b"0" * 16,
    b",".join([b"0"] * 400_000),
)


@pytest.mark.parametrize(
    "line",
    [
        b"0",
        b"{}",
        b'{"id":"x","key":"","addresses":[1,1,1,1,1,1,1,1],"port":0,"a":0,"b":0,"c":0,"d":0,"e":0,"f":0}',
        b'{"addresses":[%s]}' % b",".join([b"0"] * 1000),
        b"{%s}" % b",".join(b'"k%d":0' % number for number in range(1000)),
        b"{%s}" % b",".join(b'"k%d":0' % number for number in range(400_000)),
        VIP_WITH_BACKENDS,
        b'"%s"' % (b"x" * 5_000_000),
        b'{"%s":0}' % (b"x" * 5_000_000),
    ],
    ids=["numbers", "empty", "wrong", "addresses", "keys", "many keys", "backends", "text", "long key"],
)
async def test_a_request_full_of_errors_costs_no_more_than_reading_it(
    path: Path, recorder: Recorder, line: bytes
) -> None:
    request_line = full_of_errors(line)
    began = time.process_time()
    [reply] = await exchange(path, request_line)
    spent = time.process_time() - began
    began = time.process_time()
    json.loads(request_line)
    reading = time.process_time() - began
    assert reply["error"]["fix"]
    assert len(reply["error"]["message"]) < 2000
    assert len(reply["error"]["field"]) <= 200
    assert recorder.applied == []
    assert spent < 20 * reading + 0.5


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
