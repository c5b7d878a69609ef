"""The persistent TUN device: made once, attached to by each data-plane process."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import ExitStack
from pathlib import Path

from penstock_node.desired import Tun
from penstock_node.errors import TunError

DEVICE_PATH = "/dev/net/tun"

_COUNTERS = Path("/proc/thread-self/net/dev")  # of this thread's network namespace
_SENT_DROPPED = 11  # its place in a line: 8 counters of what was received, then bytes, packets, errors, drops

VNET_HEADER_BYTES = 10
"""Size of `struct virtio_net_hdr` before each packet, in the host's byte order."""

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8

_IFF_TUN = 0x0001
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000

_OFFLOAD_CSUM = 0x01
_OFFLOAD_TSO4 = 0x02
_OFFLOAD_TSO6 = 0x04
_OFFLOAD_TSO_ECN = 0x08
_OFFLOAD_USO4 = 0x20
_OFFLOAD_USO6 = 0x40
_OFFLOADS = _OFFLOAD_CSUM | _OFFLOAD_TSO4 | _OFFLOAD_TSO6 | _OFFLOAD_TSO_ECN
_OFFLOADS_UDP = _OFFLOAD_USO4 | _OFFLOAD_USO6  # Linux 6.2 and later

_ADVICE = {
    errno.ENOENT: "load the driver: modprobe tun; in a pod, mount the host's /dev/net/tun",
    errno.EACCES: "run as uid 0, or give this user access to the file",
    errno.EPERM: "run with CAP_NET_ADMIN",
    errno.EBUSY: "another process holds the device; stop it first",
    errno.EINVAL: "a device of this name exists with other flags; delete it: ip link delete {name}",
}


def open_tun(tun: Tun) -> tuple[int, ...]:
    """Attach to the device and return one non-blocking file descriptor per queue, which the caller owns.

    Each read or write carries a 10-byte virtio_net_hdr before the packet; checksum and segmentation
    offloads are on (UDP segmentation where the kernel has it). The device is made if it is missing, but
    only `reconcile` configures it. Raises `TunError`, naming the remedy.
    """
    with ExitStack() as opened:
        queues = []
        for _ in range(tun.queues):
            queue = _attach(tun)
            opened.callback(os.close, queue)
            _set_offloads(queue)
            queues.append(queue)
        opened.pop_all()
    return tuple(queues)


def create_tun(tun: Tun) -> None:
    """Make the device, persistent and owned by uid 0, and let go of it."""
    queue = _attach(tun)
    try:
        # Without an owner anybody who can open /dev/net/tun, often everybody, could attach to the device.
        fcntl.ioctl(queue, _TUNSETOWNER, 0)
        fcntl.ioctl(queue, _TUNSETPERSIST, 1)
    except OSError as error:
        raise _explain(tun, error) from error
    finally:
        os.close(queue)


def attach_plain(name: str) -> int:
    """Make a device that lives as long as the returned file descriptor: a packet per write, no header before it."""
    return _open(Tun(name=name), _IFF_TUN | _IFF_NO_PI)


def dropped_by_queue(name: str) -> int:
    """Return how many packets found a device's queue full, or nobody to read it, since it was made; 0 if it is gone."""
    for line in _COUNTERS.read_text().splitlines():
        device, _, counters = line.partition(":")
        if device.strip() == name:
            return int(counters.split()[_SENT_DROPPED])
    return 0


def _attach(tun: Tun) -> int:
    return _open(tun, _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if tun.multi_queue else 0))


def _open(tun: Tun, flags: int) -> int:
    try:
        queue = os.open(DEVICE_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _explain(tun, error) from error
    try:
        fcntl.ioctl(queue, _TUNSETIFF, struct.pack("16sH22x", tun.name.encode(), flags))
    except OSError as error:
        os.close(queue)
        raise _explain(tun, error) from error
    return queue


def _set_offloads(queue: int) -> None:
    fcntl.ioctl(queue, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
    try:
        fcntl.ioctl(queue, _TUNSETOFFLOAD, _OFFLOADS | _OFFLOADS_UDP)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.ioctl(queue, _TUNSETOFFLOAD, _OFFLOADS)


def _explain(tun: Tun, error: OSError) -> TunError:
    advice = _ADVICE.get(error.errno or 0, "see the kernel's log").format(name=tun.name)
    return TunError(f"TUN {tun.name}: {DEVICE_PATH}: {error.strerror}; {advice}")
