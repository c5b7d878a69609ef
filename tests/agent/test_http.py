"""The agent's small HTTP server."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest
from penstock_agent import http
from penstock_agent.http import HttpServer, Response

from tests.support.waiting import eventually


async def fine(query):
    return Response(f"fine {query.get('x', '')}".rstrip().encode() + b"\n")


async def broken(_):
    raise RuntimeError("broken")


async def long(_):
    return Response(b"penstock " * 10_000)


@pytest.fixture
async def url():
    async with HttpServer("127.0.0.1", 0, {"/fine": fine, "/broken": broken, "/long": long}) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/fine", 200, "fine\n"),
        ("GET", "/fine?x=1", 200, "fine 1\n"),
        ("GET", "/fine?x=a%20b&y&&=", 200, "fine a b\n"),
        ("HEAD", "/fine", 200, ""),
        ("GET", "/other", 404, "paths: /broken /fine /long\n"),
        ("POST", "/fine", 405, "use GET\n"),
        ("GET", "/broken", 500, "see the agent's log\n"),
    ],
)
async def test_answers(url, method, path, status, body):
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, url + path)
    assert (answer.status_code, answer.text) == (status, body)


async def raw(url, request):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_nonsense_is_a_bad_request(url):
    assert (await raw(url, b"\x16\x03\x01 nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_too_long_is_a_bad_request(url):
    assert (await raw(url, b"GET /fine HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("path", "accepted", "compressed"),
    [
        ("/long", "gzip", True),
        ("/long", "br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("/long", "gzip;q=0", False),
        ("/long", "identity", False),
        ("/fine", "gzip", False),  # not worth it
    ],
)
async def test_long_answers_are_compressed_for_those_who_take_it(url, path, accepted, compressed):
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url + path, headers={"Accept-Encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is compressed
    assert answer.content == (await long({})).body if path == "/long" else b"fine\n"
    assert (int(answer.headers["content-length"]) < 2000) is (compressed or path == "/fine")


BODY = b"x" * 8_000_000  # more than the kernel buffers for a client that does not read


class Slow(asyncio.Protocol):
    """A client that sends a request and reads nothing of the answer."""

    def __init__(self, request):
        self.request = request
        self.lost = False

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()
        transport.write(self.request)

    def connection_lost(self, _):
        self.lost = True


@contextlib.asynccontextmanager
async def slow_clients(url, count, request):
    host, port = url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: Slow(request), host, int(port)))[1] for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0)


class Serving(HttpServer):
    """Counts how often its big answer is built."""

    def __init__(self):
        super().__init__("127.0.0.1", 0, {"/healthz": fine, "/big": self.big}, always=("/healthz",))
        self.built = 0

    async def big(self, _):
        self.built += 1
        return Response(bytes(BODY))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


async def status(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).status_code


async def test_slow_readers_hold_few_answers_and_the_probe_is_answered():
    async with Serving() as server, slow_clients(server.url, 60, b"GET /big HTTP/1.1\r\n\r\n"):
        await eventually(lambda: server.built == http.MOST_ANSWERS)
        assert await status(f"{server.url}/healthz") == 200
        assert await status(f"{server.url}/big") == 503
        assert server.built == http.MOST_ANSWERS


async def test_a_slow_reader_makes_room_for_another_client(monkeypatch):
    monkeypatch.setattr(http, "PATIENCE_SECONDS", 0.2)
    request = b"GET /big HTTP/1.1\r\n\r\n"
    async with Serving() as server, slow_clients(server.url, http.MOST_ANSWERS, request):
        await eventually(lambda: server.built == http.MOST_ANSWERS)
        await asyncio.sleep(0.3)
        assert await status(f"{server.url}/big") == 200


async def test_a_client_that_reads_nothing_is_cut(monkeypatch):
    monkeypatch.setattr(http, "CHUNK_SECONDS", 0.2)
    async with Serving() as server, slow_clients(server.url, 1, b"GET /big HTTP/1.1\r\n\r\n"):
        await eventually(lambda: server._answering)
        await eventually(lambda: not server._answering and not server._open)


async def test_silent_connections_make_room():
    async with Serving() as server, slow_clients(server.url, http.MOST_CONNECTIONS + 50, b"GET"):
        assert await status(f"{server.url}/healthz") == 200
        assert len(server._open) <= http.MOST_CONNECTIONS


async def test_an_answer_arrives_whole():
    async with Serving() as server, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{server.url}/big", headers={"Accept-Encoding": "identity"})).content == BODY
