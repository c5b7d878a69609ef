"""Servers that know how many requests they have, and clients to match; each protocol only as far as packets show it.

    outstanding.py serve CERTIFICATE KEY        prints when it listens; on SIGTERM, what it knew
    outstanding.py load KIND ADDRESS SECONDS    requests of one of KINDS

What the server knew is a list of (CLOCK_BOOTTIME in us, +1 or -1): a request begins when it has been read and ends when
the last byte of its answer has been sent.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from aiohttp import web

PORTS = {"http": 8081, "tls": 8082, "http2": 8083, "websocket": 8084}
_SIOCOUTQNSD = 0x894B  # bytes that were never sent
_FRAME = struct.Struct("!BHBBI")  # HTTP/2: length (high byte, rest), type, flags, stream
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS_200, _GET_SLASH = b"\x88", b"\x82\x84\x86\x41\x01x"  # HPACK, from its static table

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
events: list[tuple[int, int]] = []


def note(change: int) -> None:
    events.append((time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000, change))


async def sent(writer: asyncio.StreamWriter) -> None:
    """Wait until nothing is left to be sent (the last bytes may still be on their way)."""
    await writer.drain()
    handle = writer.get_extra_info("socket").fileno()
    while struct.unpack("i", fcntl.ioctl(handle, _SIOCOUTQNSD, b"\0" * 4))[0] > 0:  # noqa: ASYNC110 - the kernel's
        await asyncio.sleep(0.001)


# ---- servers


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """GET /SECONDS/BYTES/PIECES: an answer after so long, a head and so many pieces; pipelined ones wait in line.

    No pieces: all in one write, so that a small answer is one segment.
    """
    line: asyncio.Queue[str] = asyncio.Queue()
    answering = asyncio.create_task(_answer_in_turn(line, writer))
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            note(+1)
            line.put_nowait(head.decode().split(" ", 2)[1])
    answering.cancel()  # what the client waits for no more
    await asyncio.wait([answering])
    for _ in range(line.qsize()):
        note(-1)


async def _answer_in_turn(line: asyncio.Queue[str], writer: asyncio.StreamWriter) -> None:
    while True:
        path = await line.get()
        try:
            await _answer(path, writer)
        finally:
            note(-1)


async def _answer(path: str, writer: asyncio.StreamWriter) -> None:
    _, seconds, size, pieces = path.split("/")
    await asyncio.sleep(float(seconds))
    head, body = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(size), b"x" * int(size)
    if pieces == "0":
        head, body = head + body, b""
    writer.write(head)
    for piece in range(int(pieces)):
        writer.write(body[: int(size) // int(pieces)])
        await writer.drain()
        if piece + 1 < int(pieces):
            await asyncio.sleep(0.02)
    await sent(writer)


async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every stream gets its answer after 0.2 s, as those of one connection are free to."""
    await reader.readexactly(len(_PREFACE))
    writer.write(_frame(4, 0, 0))
    while True:
        kind, flags, stream, _ = await _read_frame(reader)
        if kind == 4 and not flags:
            writer.write(_frame(4, 1, 0))
        elif kind == 1:
            note(+1)
            asyncio.get_running_loop().call_later(0.2, _answer_stream, writer, stream)


def _answer_stream(writer: asyncio.StreamWriter, stream: int) -> None:
    writer.write(_frame(1, 4, stream, _STATUS_200) + _frame(0, 1, stream, b"x" * 500))
    note(-1)


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Each message says after how long it is to be answered; negative: never."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    with suppress(ConnectionError):
        async for message in connection:
            delay = float(message.data.split(":")[0])
            if delay >= 0:
                note(+1)
                await asyncio.sleep(delay)
                await connection.send_str("y" * 100)
                note(-1)
    return connection


async def serve_websocket(port: int) -> None:
    application = web.Application()
    application.router.add_get("/", websocket)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    high, low, kind, flags, stream = _FRAME.unpack(await reader.readexactly(_FRAME.size))
    return kind, flags, stream, await reader.readexactly(high << 16 | low)


def quietly(serve: Handler) -> Handler:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()

    return one


async def serve(certificate: str, key: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    for name, handler in {"http": http, "tls": http, "http2": http2}.items():
        secured = context if name == "tls" else None
        await asyncio.start_server(quietly(handler), "0.0.0.0", PORTS[name], ssl=secured, backlog=512)
    await serve_websocket(PORTS["websocket"])
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    print(json.dumps(events), flush=True)
    os._exit(0)  # connections that are still open end with the process, without a word


# ---- clients


async def request(streams: Streams, path: str, times: int = 1, *, prompt: bool = False) -> None:
    """Ask so many times at once and read the answers; `prompt`: their first segment is acknowledged at once."""
    reader, writer = streams
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * times)
    if prompt:  # until the kernel thinks better of it, so each time
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    for _ in range(times):
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        while left > 0:
            left -= len(await reader.read(min(left, 1 << 18)))


async def kept(streams: Streams, path: str, pause: float, times: int = 1, *, prompt: bool = False) -> None:
    """One request after the other on one connection, with pauses."""
    while True:
        await request(streams, path, times, prompt=prompt)
        await asyncio.sleep(random.expovariate(1 / pause) if pause else 0)


async def streams_of_http2(streams: Streams) -> None:
    """Four requests at a time on one connection."""
    reader, writer = streams
    writer.write(_PREFACE + _frame(4, 0, 0))
    stream = 1
    for _ in range(4):
        writer.write(_frame(1, 5, stream, _GET_SLASH))
        stream += 2
    while True:
        kind, flags, _, _ = await _read_frame(reader)
        if kind == 0 and flags & 1:
            await asyncio.sleep(0)
            writer.write(_frame(1, 5, stream, _GET_SLASH))
            stream += 2


async def exchange(address: str, delay: float, pause: float) -> None:
    """Messages over a websocket, answered or not."""
    url = f"ws://{address}:{PORTS['websocket']}/"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as connection:
        while True:
            await connection.send_str(f"{delay}:".ljust(200, "z"))
            if delay >= 0:
                await connection.receive_str()
            await asyncio.sleep(random.expovariate(1 / pause))


KINDS: dict[str, tuple[str, Callable[[Streams], Awaitable[None]], bool]] = {  # server, on a connection, a new one each
    "new": ("http", lambda s: request(s, "/0.2/500/1"), True),
    "kept_alive": ("http", lambda s: kept(s, "/0.2/500/1", 0.2), False),
    "kept_alive_busy": ("http", lambda s: kept(s, "/0.1/500/1", 0), False),
    "slow": ("http", lambda s: kept(s, "/2/500/1", 0.5), False),
    "large": ("http", lambda s: kept(s, "/0.1/1500000/1", 0.2), False),
    "kept_alive_short": ("http", lambda s: kept(s, "/0.2/500/0", 0.2), False),
    "middling_short": ("http", lambda s: kept(s, "/0.1/500/0", 0.1), False),
    "quick_short": ("http", lambda s: kept(s, "/0.005/500/0", 0.1), False),
    "quick_short_prompt": ("http", lambda s: kept(s, "/0.005/500/0", 0.1, prompt=True), False),
    "quick": ("http", lambda s: kept(s, "/0.005/500/1", 0.1), False),
    "quick_busy": ("http", lambda s: kept(s, "/0.005/500/1", 0), False),
    "in_pieces": ("http", lambda s: kept(s, "/0.1/500000/20", 0.2), False),
    "pipelined": ("http", lambda s: kept(s, "/0.1/500/1", 0.2, times=4), False),
    "long_poll": ("http", lambda s: kept(s, "/40/500/1", 0.5), False),
    "tls_new": ("tls", lambda s: request(s, "/0.2/500/1"), True),
    "tls_kept_alive": ("tls", lambda s: kept(s, "/0.2/500/1", 0.2), False),
    "http2": ("http2", streams_of_http2, False),
}
WEBSOCKETS = {"websocket": (0.2, 0.2), "websocket_unanswered": (-1.0, 0.5)}  # delay of answers, pauses


def port_of(kind: str) -> int:
    """The port that a kind's requests go to."""
    return PORTS["websocket" if kind in WEBSOCKETS else KINDS[kind][0]]


async def websocket_client(kind: str, address: str, until: float) -> None:
    await asyncio.sleep(random.random() * 0.5)
    with suppress(TimeoutError):
        async with asyncio.timeout(until - time.monotonic()):
            await exchange(address, *WEBSOCKETS[kind])


async def client(kind: str, address: str, until: float) -> None:
    server, use, again = KINDS[kind]
    context = None
    if server == "tls":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await asyncio.sleep(random.random() * 0.5)
    while time.monotonic() < until:
        streams = await asyncio.open_connection(address, PORTS[server], ssl=context)
        with suppress(TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                await use(streams)
        streams[1].close()
        with suppress(ConnectionError, ssl.SSLError):
            await streams[1].wait_closed()
        await asyncio.sleep(random.expovariate(1 / 0.2) if again else 0)


async def load(kind: str, address: str, seconds: float, clients: int = 20) -> None:
    until = time.monotonic() + seconds
    one = websocket_client if kind in WEBSOCKETS else client
    await asyncio.gather(*(one(kind, address, until) for _ in range(clients)))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(*sys.argv[2:4]))
    else:
        asyncio.run(load(sys.argv[2], sys.argv[3], float(sys.argv[4])))
