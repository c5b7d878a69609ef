"""Writes seeds of fuzz_api, requests as clients send them: `python make_api_corpus.py DIRECTORY`."""

from __future__ import annotations

import struct
import sys
from ipaddress import ip_address
from pathlib import Path

(VIP_SET, VIP_REMOVE, SOURCES_SET, NODE_SET, AGENT_SET, ENABLE, DISABLE, PUBLISH, GET, STATS_GET, WANT_EVENTS) = range(
    11
)
SOURCE_DUMP, VIP_DUMP, BACKEND_DUMP, FLOW_GET, STEP, NODE_GET, MEMORY_GET, STATS_CLEAR = range(11, 19)
STRANGER = 0x20
TIMEOUTS = (10_000, 900_000, 10_000, 10_000, 30_000, 180_000, 1_000)


def framed(which: int, body: bytes = b"") -> bytes:
    """One message behind the header that the fuzz target reads."""
    return struct.pack("<BH", which, len(body)) + body


def address(text: str) -> bytes:
    """A vl_api_address_t."""
    value = ip_address(text)
    return bytes([value.version == 6]) + value.packed.ljust(16, b"\0")


def backend(number: int, to: str = "", *, port: int = 8080, state: int = 1, weight: float = 1.0) -> bytes:
    """A server."""
    # The weight is in the byte order of the machine: VPP converts none of floating point.
    return (
        struct.pack(">Q", number)
        + address(to or f"10.0.0.{number}")
        + struct.pack(">HB", port, state)
        + struct.pack("=d", weight)
    )


def vip(number: int, *addresses: str, backends: tuple[bytes, ...] = (), **changes: int) -> bytes:
    """A request for a VIP."""
    fields = {
        "protocol": 6,
        "port": 80,
        "affinity": 0,
        "scheduler": 2,
        "load": 0,
        "level": 1,
        "forwarding": 0,
        "dscp": 0,
    }
    fields |= {"mtu": 0, "table": 0, "drain": 1000} | changes
    held = addresses or ("203.0.113.10",)
    body = struct.pack(">QBHBBBBBBHII", number, *fields.values()) + struct.pack(">7I", *TIMEOUTS) + bytes([len(held)])
    body += b"".join(map(address, held)).ljust(8 * 17, b"\0")
    return framed(VIP_SET, body + struct.pack(">I", len(backends)) + b"".join(backends))


def sources(*ranges: tuple[str, int, int]) -> bytes:
    """The NAT sources."""
    body = b"".join(address(each) + struct.pack(">HH", first, last) for each, first, last in ranges)
    return framed(SOURCES_SET, struct.pack(">I", len(ranges)) + body)


def enable(directory: str, *numbers: int) -> bytes:
    """flows, vips, slots, interval, grace, tables of clients and servers."""
    rest = numbers or (2048, 8, 64, 1, 1000, 0, 0)
    return framed(ENABLE, directory.encode().ljust(256, b"\0") + struct.pack(">7Ii", *rest, -1))


def number(which: int, value: int) -> bytes:
    """A request that says a 64-bit number."""
    return framed(which, struct.pack(">Q", value))


def seeds() -> dict[str, bytes]:
    """Inputs by name."""
    two = (backend(1), backend(2, weight=0.5))
    six = (backend(1, "2001:db8:1::1"), backend(2, "2001:db8:1::2", state=2))
    looks = framed(SOURCE_DUMP) + number(VIP_DUMP, 0) + number(BACKEND_DUMP, 7) + framed(GET) + framed(STATS_GET)
    looks += framed(FLOW_GET, struct.pack(">QIQ", 0, 10, 0)) + framed(PUBLISH)
    source = sources(("192.0.2.1", 16384, 28671), ("2001:db8:2::1", 16384, 20479))
    policy = [framed(AGENT_SET, bytes([follow]) + name.ljust(64, b"\0")) for follow, name in ((1, b"sed"), (0, b""))]
    events = framed(WANT_EVENTS, struct.pack(">BI", 1, 7))
    return {
        "balanced": source + framed(NODE_SET, bytes(range(16)) + struct.pack(">I", 2)) + vip(7, backends=two) + looks,
        "six": vip(7, "2001:db8::10", "2001:db8::11", backends=six, protocol=17, port=53, level=2) + looks,
        "gre": vip(7, backends=(backend(1), six[0]), forwarding=1, mtu=1400) + number(VIP_DUMP, 7),
        "l3dsr": vip(7, backends=two, forwarding=2, dscp=7, scheduler=0, table=251, affinity=1) + looks,
        "change": vip(7, backends=two) + vip(7, backends=two[1:], scheduler=3, level=2) + framed(STEP) + looks,
        "remove": vip(7, backends=two, drain=0) + number(VIP_REMOVE, 7) + framed(STEP) * 2 + number(VIP_DUMP, 0),
        "events": events + vip(7, backends=two) + number(VIP_REMOVE, 7) + framed(STEP) + policy[0],
        "policy": policy[0] + framed(GET) + policy[1] + framed(GET),
        "again": framed(DISABLE, b"\0") + vip(7) + enable("") + enable("/fuzz") + framed(DISABLE, b"\1") + framed(GET),
        "other": framed(DISABLE, b"\1") + enable("/fuzz", 4096, 4, 32, 1, 0, 1, 2) + vip(7, backends=two) + looks,
        "tables": vip(1, load=1)
        + vip(2, "203.0.113.11", scheduler=4)
        + sources(("203.0.113.11", 1024, 1087))
        + framed(STEP),
        "stranger": bytes([events[0] | STRANGER]) + events[1:] + bytes([VIP_SET | STRANGER]) + vip(7)[1:],
        "bad": vip(0)
        + vip(1, port=0)
        + vip(1, protocol=1)
        + vip(1, scheduler=9)
        + vip(1, backends=(backend(1, port=0),)),
        "short": framed(VIP_SET, b"\0\0\0\0\0\0\0\7\6\0\x50")
        + framed(SOURCES_SET, b"\0\0\0\4")
        + number(VIP_REMOVE, 9),
        "many": vip(7, backends=tuple(backend(each) for each in range(1, 130))) + number(BACKEND_DUMP, 7),
        "told": framed(NODE_SET, bytes(range(16)) + struct.pack(">I", 2))
        + framed(NODE_GET)
        + vip(7, backends=two)
        + framed(MEMORY_GET)
        + framed(STATS_CLEAR)
        + framed(STATS_GET, b"\1"),
        "told-disabled": framed(DISABLE, b"\1") + framed(NODE_GET) + framed(MEMORY_GET) + framed(STATS_CLEAR),
        "sources-bad": sources(("192.0.2.1", 80, 127)) + sources(*[("192.0.2.1", 1024, 1087)] * 9),
    }


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (out / name).write_bytes(data)
