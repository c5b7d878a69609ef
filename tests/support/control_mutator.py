"""Mutations of control messages for libFuzzer: of the tree that a line means, so that most of them get past the parser.

An input is lines of JSON; now and then its bytes are mutated as such.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import atheris

Tree = Any  # what json.loads returns
Place = tuple[Tree, Any]  # a dict or list, and a key or index of it

NUMBERS = (0, 1, -1, 2, 63, 64, 250, 251, 1023, 1024, 1279, 1280, 4096, 16384, 28671, 65472, 65535, 65536, 65537)
EXTREMES = (
    2**31,
    2**32 - 1,
    2**53,
    2**64,
    -(2**63),
    0.5,
    1e-45,
    5e-324,
    1e6,
    1e300,
    float("nan"),
    float("inf"),
    10**400,
)
WORDS = (
    *("", "0", "x", "TCP", "UDP", "NAT", "GRE", "L3DSR", "maglev", "sed", "lsq", "alias", "p2c", "open", "active"),
    *("draining", "failed", "off", "basic", "full", "hello", "apply", "dump", "stats", "withdraw", "eth0"),
    *("203.0.113.10", "203.0.113.11", "10.0.0.1", "0.0.0.0", "2001:db8::10", "::", "::1", "::ffff:203.0.113.10"),
    *(
        "::203.0.113.10",
        "fe80::1%eth0",
        "0" * 16,
        "0" * 15 + "1",
        "f" * 16,
        "0" * 32,
        "\ud800",
        "\0",
        "é",
        "a.b",
        "vips",
    ),
)
KEYS = (
    *(
        "version",
        "id",
        "method",
        "params",
        "generation",
        "scheduler_key",
        "nodes",
        "nat_sources",
        "announcement",
        "vips",
    ),
    *("key", "addresses", "protocol", "port", "forwarding", "dscp", "tunnel_mtu", "client_affinity", "scheduler"),
    *("when_no_backends", "when_no_flow"),
    *("features", "timeouts", "drain_timeout", "backends", "address", "weight", "state", "type", "load", "table_size"),
    *("port_first", "port_last", "interfaces", "tcp_established", "udp_stream", "", "\ud800", "a.b"),
)
CONTAINERS: tuple[Tree, ...] = ([], {}, [[]], None, True, False)
BYTES_IN_TEN = 1  # so many of ten mutations are of bytes


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one line, by its tree where it is JSON."""
    chance = random.Random(seed)
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    tree = _read(lines[at])
    if tree is None or chance.randrange(10) < BYTES_IN_TEN:
        return bytes(atheris.Mutate(data, max_size))
    kind = chance.randrange(12)
    if kind == 0:
        lines.insert(at, lines[chance.randrange(len(lines))])
    elif kind == 1 and len(lines) > 1:
        del lines[at]
    elif kind == 2 and chance.randrange(50) == 0:
        lines[at] = chance.choice((b"\0", b"\1")) + lines[at].lstrip(b"\0\1")
    else:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            _change(tree, chance)
        lines[at] = _written(tree)
    return _fitting(lines, max_size)


def cross(one: bytes, other: bytes, max_size: int, seed: int) -> bytes:
    """Put lines of two inputs together, or a part of the one's tree into the other's."""
    chance = random.Random(seed)
    lines, others = one.split(b"\n"), other.split(b"\n")
    at, tree, donor = chance.randrange(len(lines)), None, _read(chance.choice(others))
    tree = _read(lines[at])
    if tree is None or donor is None or chance.randrange(2):
        lines[at:at] = others[chance.randrange(len(others)) :]
        return _fitting(lines, max_size)
    given = list(_places(donor))
    taken = list(_places(tree))
    if given and taken:
        source, name = chance.choice(given)
        same = [place for place in taken if place[1] == name] or taken
        holder, key = chance.choice(same)
        holder[key] = copy.deepcopy(source[name])
    lines[at] = _written(tree)
    return _fitting(lines, max_size)


def _read(line: bytes) -> Tree | None:
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def _written(tree: Tree) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()


def _fitting(lines: list[bytes], max_size: int) -> bytes:
    while len(lines) > 1 and sum(map(len, lines)) + len(lines) - 1 > max_size:
        lines.pop()
    return b"\n".join(lines)[:max_size]


def _places(tree: Tree) -> Iterator[Place]:
    """Walk all places of a tree that hold a value."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _change(tree: Tree, chance: random.Random) -> None:
    places = list(_places(tree))
    if not places:
        tree[chance.choice(KEYS)] = _invented(chance)
        return
    holder, key = chance.choice(places)
    match chance.randrange(8):
        case 0 | 1 | 2:
            holder[key] = _altered(holder[key], chance)
        case 3:
            holder[key] = _invented(chance)
        case 4:
            source, name = chance.choice(places)
            holder[key] = copy.deepcopy(source[name])
        case 5:
            del holder[key]
        case 6 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        case 7 if isinstance(holder, list) and len(holder) > 1:
            other = chance.randrange(len(holder))
            holder[key], holder[other] = holder[other], holder[key]
        case _ if isinstance(holder, dict):
            holder[chance.choice(KEYS)] = _invented(chance)


def _invented(chance: random.Random) -> Tree:
    return copy.deepcopy(chance.choice(chance.choice((NUMBERS, EXTREMES, WORDS, CONTAINERS))))


def _altered(value: Tree, chance: random.Random) -> Tree:
    """Return something of the same kind: near, so that it is often accepted."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice((value + 1, value - 1, -value, value * 64, value // 2, chance.randrange(65536)))
        case float():
            return chance.choice((value / 2, value * 2, -value, value + 1, chance.random(), 0.0))
        case str() if value:
            at = chance.randrange(len(value))
            letter = chance.choice("0123456789abcdef:.%-TAx ")
            return chance.choice((value[:at] + letter + value[at + 1 :], value[:at] + value[at + 1 :], value + letter))
        case list() if value:
            return value * 2 if len(value) < 64 else value[: len(value) // 2]
        case _:
            return _invented(chance)
