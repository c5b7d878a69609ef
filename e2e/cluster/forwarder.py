"""Makes a TCP port of a cluster's network reachable on loopback, so that the machine's own network stays as it is.

The listening socket is made in the namespace that the process starts in, then the process moves: every connection it
makes from then on comes from the cluster's namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys

_CLONE_NEWNET = 0x40000000
_CHUNK = 65_536


def enter_network_namespace(path: str) -> None:
    """Move this thread into a network namespace (os.setns is there only from Python 3.12 on)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _serve(port: int, namespace: str, host: str, target_port: int) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, target_port)
            try:
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.close()
        writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    enter_network_namespace(namespace)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run: forwarder PORT NAMESPACE-FILE HOST HOST-PORT."""
    port, namespace, host, target_port = sys.argv[1:]
    asyncio.run(_serve(int(port), namespace, host, int(target_port)))


if __name__ == "__main__":
    main()
