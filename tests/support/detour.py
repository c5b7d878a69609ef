"""A way through a program for what a namespace sends to one address: late, or out of order."""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.netns import Namespace

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
_SO_BINDTODEVICE = 25
_LONGEST = 70_000


class Detour:
    """Holds each packet for as long as `delay` says, in seconds, and sends it on by `device`; nothing is lost.

    The kernel cuts super-packets and fills in checksums before they come here.
    """

    def __init__(self, namespace: Namespace, address: str, delay: Callable[[], float], device: str = "eth0") -> None:
        self._namespace, self._address, self._delay = namespace, address, delay
        self._version = 6 if ":" in address else 4
        self._device = device
        self._tun = namespace.run(self._open_tun)
        self._out = namespace.run(self._open_out)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, name="detour")

    def _open_tun(self) -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"detour", _TUN_WITHOUT_HEADER))
        return tun

    def _open_out(self) -> socket.socket:
        family = socket.AF_INET6 if self._version == 6 else socket.AF_INET
        out = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)  # headers included
        out.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self._device.encode())
        return out

    def __enter__(self) -> Self:
        family = f"-{self._version}"
        found = self._namespace.sh(f"ip {family} route get {self._address}").split()
        source = found[found.index("src") + 1]
        self._namespace.sh(
            f"""ip link set detour up
            sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{self._device}.rp_filter=0
            ip {family} route add {self._address} dev detour src {source}"""
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._namespace.sh(f"ip -{self._version} route del {self._address} dev detour")
        self._stop.set()
        self._thread.join()
        os.close(self._tun)  # the device goes with it
        self._out.close()

    def _pass_on(self) -> None:
        held: list[tuple[float, int, bytes]] = []
        numbers = itertools.count()
        while held or not self._stop.is_set():
            wait = max(0.0, held[0][0] - time.monotonic()) if held else 0.05
            if select.select([self._tun], [], [], wait)[0]:
                packet = os.read(self._tun, _LONGEST)
                if packet[0] >> 4 == self._version:  # an interface has things of its own to say
                    heapq.heappush(held, (time.monotonic() + self._delay(), next(numbers), packet))
            while held and held[0][0] <= time.monotonic():
                self._out.sendto(heapq.heappop(held)[2], (self._address, 0))
