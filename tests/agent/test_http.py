"""The agent's small HTTP server."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from penstock_agent.http import HttpServer, Response


async def fine():
    return Response(b"fine\n")


async def broken():
    raise RuntimeError("broken")


@pytest.fixture
async def url():
    async with HttpServer("127.0.0.1", 0, {"/fine": fine, "/broken": broken}) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/fine", 200, "fine\n"),
        ("GET", "/fine?x=1", 200, "fine\n"),
        ("HEAD", "/fine", 200, ""),
        ("GET", "/other", 404, "paths: /broken /fine\n"),
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
