"""The servers behind a VIP in tests: HTTP/1.1 with keep-alive and a UDP echo, on IPv4 and IPv6.

GET /            name of the server
GET /bytes/<n>   n bytes
GET /slow/<s>    name of the server, after s seconds
GET /work        name of the server, after its service time: one request after another, as by one clerk
GET /last        name of the server, which then closes the connection
POST /           number of bytes received
Arguments: its name, and the service time in seconds, 0 if not given. Prints one line when it listens.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

HTTP_PORT = 8080
UDP_PORT = 5353
CHUNK = bytes(range(256)) * 1024


class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with the server's name and what was sent."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        assert self._transport is not None
        self._transport.sendto(self._name + b" " + data, peer)


class Clerk:
    """Serves one request after another."""

    def __init__(self, service_seconds: float) -> None:
        self._seconds = service_seconds
        self._busy = asyncio.Lock()

    async def work(self) -> None:
        async with self._busy:
            await asyncio.sleep(self._seconds)


async def serve(name: str, clerk: Clerk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while (head := await reader.readuntil(b"\r\n\r\n")) != b"":
            await answer(name, clerk, head.decode(), reader, writer)
            await writer.drain()
            if head.startswith(b"GET /last "):
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(
    name: str, clerk: Clerk, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    lines = head.split("\r\n")
    method, path, _version = lines[0].split(" ")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:] if line)}
    if method == "POST":
        left = total = int(headers["content-length"])
        while left:
            left -= len(await reader.readexactly(min(left, 1 << 20)))
        respond(writer, str(total).encode())
    elif path.startswith("/bytes/"):
        await stream(writer, int(path.removeprefix("/bytes/")))
    else:
        if path.startswith("/slow/"):
            await asyncio.sleep(float(path.removeprefix("/slow/")))
        elif path == "/work":
            await clerk.work()
        respond(writer, name.encode())


def respond(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def stream(writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    while size > 0:
        writer.write(CHUNK[:size])
        size -= len(CHUNK)
        await writer.drain()


async def main(name: str, service_seconds: float = 0.0) -> None:
    clerk = Clerk(service_seconds)
    loop = asyncio.get_running_loop()
    servers = []
    await loop.create_datagram_endpoint(lambda: Echo(name), ("::", UDP_PORT))  # takes IPv4 too
    for host in ("0.0.0.0", "::"):
        server = await asyncio.start_server(lambda r, w: serve(name, clerk, r, w), host, HTTP_PORT, backlog=512)
        servers.append(server)
    print(json.dumps({"ready": name}), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:])))
