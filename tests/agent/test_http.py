"""The agent's small HTTP server."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from penstock_agent.http import HttpServer, Response


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
