"""Network cards that VPP takes for itself: the kernel stops listening on them, and is given them back at the end.

By packet sockets VPP only gets copies of frames: without the nft chain here the kernel would answer each of them too.
What was switched off on a card is remembered in a file, beside the arena: it has to outlive the process.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from penstock_node import NodeError, nftables
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

RECORD_NAME = "penstock.cards"
TABLE = "penstock_cards"

_SIOCETHTOOL = 0x8946
_GET_GRO, _SET_GRO = 0x2B, 0x2C  # frames that the kernel put together are longer than the MTU
_BEFORE_ALL = -500  # priority


def take(devices: Iterable[str], directory: Path) -> None:
    """Make the kernel deaf on exactly these devices. Raises NodeError or OSError."""
    give_back(directory)
    names = sorted(devices)
    if not names:
        return
    (directory / RECORD_NAME).write_text(json.dumps({name: _gro(name) for name in names}))
    for name in names:
        _set_gro(name, 0)
    chains = "\n".join(
        f'  chain card{number} {{ type filter hook ingress device "{name}" priority {_BEFORE_ALL}; policy drop; }}'
        for number, name in enumerate(names)  # names of devices may be words of nft's
    )
    nftables.run(["-f", "-"], f"table netdev {TABLE} {{\n{chains}\n}}\n")


def give_back(directory: Path) -> None:
    """Undo `take`; nothing if nothing was taken. Raises NodeError."""
    record = directory / RECORD_NAME
    if not record.exists():
        return
    if TABLE in nftables.run(["list", "tables", "netdev"]):
        nftables.run(["delete", "table", "netdev", TABLE])
    for name, value in json.loads(record.read_text()).items():
        try:
            _set_gro(name, value)
        except OSError as error:
            if error.errno != errno.ENODEV:  # a card that is gone needs nothing back
                raise NodeError(f"{name}: {error.strerror}; run: ethtool -K {name} gro on") from error
    record.unlink()


def take_program_off(name: str) -> None:
    """Remove the XDP program that a VPP which is gone has left before a card's driver. Raises NodeError."""
    with IPRoute() as channel:
        try:
            for index in channel.link_lookup(ifname=name):
                channel.link("set", index=index, xdp_fd=-1)
        except NetlinkError as error:
            raise NodeError(f"{name}: {error}; run: ip link set dev {name} xdp off") from error


def _gro(name: str) -> int:
    return _ethtool(name, _GET_GRO, 0)


def _set_gro(name: str, value: int) -> None:
    _ethtool(name, _SET_GRO, value)


def _ethtool(name: str, command: int, value: int) -> int:
    request = array.array("I", (command, value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), request.buffer_info()[0]))
    return request[1]
