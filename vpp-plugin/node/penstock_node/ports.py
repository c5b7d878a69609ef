"""Raw sockets on one interface, for the announcer: what concerns its addresses comes in, frames go out."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from penstock_node import neighbours
from penstock_node.desired import Address
from penstock_node.errors import AnnounceError

_SIOCGIFFLAGS = 0x8913
_SIOCGIFHWADDR = 0x8927
_IFF_RUNNING = 0x40
_ARPHRD_ETHER = 1
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_FRAMES_PER_TURN = 64  # then others of the event loop have their turn
_FRAME_BYTES = 256  # ARP and neighbour discovery are shorter; longer frames are cut, and then refused as malformed

# Opcodes of classic BPF.
_LOAD_WORD, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x20, 0x30, 0x15, 0x06
_FILTER_MAX = 4096  # instructions that the kernel takes
_ACCEPT, _DROP = 0xFFFFFFFF, 0

# Offsets in an Ethernet frame.
_ARP_SENDER, _ARP_TARGET = 14 + 14, 14 + 24
_IPV6_NEXT_HEADER, _ICMPV6_TYPE, _ND_TARGET_LOW = 14 + 6, 14 + 40, 14 + 40 + 8 + 12

_Instruction = tuple[int, int, int, int]


class Port:
    """Sockets of one interface. `receive` is called by the owner's event loop when one of `sockets` is readable."""

    def __init__(self, interface: str, handle: Callable[[Port, bytes], None]) -> None:
        self.interface = interface
        self.index, self.mac, self.running = look_up(interface)
        self._handle = handle
        self._groups: dict[IPv6Address, socket.socket] = {}
        self._members: list[socket.socket] = []
        self._arp = self._open(neighbours.ETHERTYPE_ARP)
        try:
            self._ipv6 = self._open(neighbours.ETHERTYPE_IPV6)
        except AnnounceError:
            self._arp.close()
            raise

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Sockets to be watched for input."""
        return self._arp, self._ipv6

    def close(self) -> None:
        """Close everything; the multicast groups are left by that."""
        for each in (self._arp, self._ipv6, *self._members):
            each.close()

    def unchanged(self) -> bool:
        """Whether the interface is still the one that was opened, in the same state."""
        try:
            return look_up(self.interface) == (self.index, self.mac, self.running)
        except AnnounceError:
            return False

    def listen(self, addresses: Iterable[Address]) -> None:
        """Have only frames about these addresses come in, and join the IPv6 groups they are asked in."""
        held = list(addresses)
        ipv4 = [int(address) for address in held if isinstance(address, IPv4Address)]
        ipv6 = [address for address in held if isinstance(address, IPv6Address)]
        try:
            _attach(self._arp, _arp_filter(ipv4))
            _attach(self._ipv6, _neighbour_filter([int(address) & 0xFFFFFFFF for address in ipv6]))
        except OSError as error:
            raise AnnounceError(f"interface {self.interface}: no filter: {error.strerror}") from error
        self._join({neighbours.solicited_node(address) for address in ipv6})

    def send(self, frame: bytes) -> None:
        """Send a frame; one that the interface cannot take now is lost, as any frame may be."""
        try:
            self._arp.send(frame)
        except OSError as error:
            if error.errno not in (errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.ENOBUFS, errno.EAGAIN):
                raise

    def receive(self, ready: socket.socket) -> None:
        """Hand every waiting frame on."""
        for _ in range(_FRAMES_PER_TURN):
            try:
                frame, (_, _, kind, *_) = ready.recvfrom(_FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:
                return  # the interface went down or away: the owner's watch sees that too
            if kind in (socket.PACKET_HOST, socket.PACKET_BROADCAST, socket.PACKET_MULTICAST):
                self._handle(self, frame)

    def _open(self, ethertype: int) -> socket.socket:
        try:
            # Protocol 0 receives nothing: the filter is in place before the first frame comes.
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError as error:
            raise AnnounceError(f"interface {self.interface}: raw sockets need CAP_NET_RAW") from error
        try:
            _attach(raw, _DROP_ALL)
            raw.bind((self.interface, ethertype))
        except OSError as error:
            raw.close()
            raise AnnounceError(f"interface {self.interface}: {error.strerror}") from error
        return raw

    def _join(self, groups: set[IPv6Address]) -> None:
        for group in self._groups.keys() - groups:
            self._groups.pop(group).setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, self._membership(group))
        for group in groups - self._groups.keys():
            self._groups[group] = self._join_one(group)

    def _join_one(self, group: IPv6Address) -> socket.socket:
        """Join with the newest socket, or a new one: what one socket may join is bounded by its option memory."""
        for fresh in (False, True):
            if fresh or not self._members:
                self._members.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            try:
                self._members[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, self._membership(group))
            except OSError as error:
                if fresh or error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise AnnounceError(
                        f"interface {self.interface}: cannot join {group}: {error.strerror}; "
                        f"IPv6 must be on: sysctl -w net.ipv6.conf.{self.interface}.disable_ipv6=0"
                    ) from error
            else:
                break
        return self._members[-1]

    def _membership(self, group: IPv6Address) -> bytes:
        return group.packed + struct.pack("@I", self.index)


def look_up(interface: str) -> tuple[int, bytes, bool]:
    """Index, MAC address and whether it runs, of an Ethernet interface."""
    request = struct.pack("16s24x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            index = socket.if_nametoindex(interface)
            flags = struct.unpack_from("H", fcntl.ioctl(channel, _SIOCGIFFLAGS, request), 16)[0]
            hardware, mac = struct.unpack_from("H6s", fcntl.ioctl(channel, _SIOCGIFHWADDR, request), 16)
        except OSError as error:
            raise AnnounceError(f"interface {interface}: {error}; name one that `ip link` shows") from error
    if hardware != _ARPHRD_ETHER:
        raise AnnounceError(f"interface {interface}: not Ethernet, so there is no ARP; name another interface")
    return index, mac, bool(flags & _IFF_RUNNING)


def _arp_filter(addresses: list[int]) -> list[_Instruction]:
    return _bounded([*_any_of(_ARP_TARGET, addresses), *_any_of(_ARP_SENDER, addresses)])


def _neighbour_filter(low_words: list[int]) -> list[_Instruction]:
    """ICMPv6 types 135 and 136 about these addresses, of which the low 32 bits are looked at."""
    if not low_words:
        return _DROP_ALL
    head: list[_Instruction] = [
        (_LOAD_BYTE, 0, 0, _IPV6_NEXT_HEADER),
        (_JUMP_EQUAL, 1, 0, 58),
        (_RETURN, 0, 0, _DROP),
        (_LOAD_BYTE, 0, 0, _ICMPV6_TYPE),
        (_JUMP_EQUAL, 2, 0, 135),
        (_JUMP_EQUAL, 1, 0, 136),
        (_RETURN, 0, 0, _DROP),
    ]
    return head + _bounded(_any_of(_ND_TARGET_LOW, low_words), room=_FILTER_MAX - len(head))


def _any_of(offset: int, words: list[int]) -> list[_Instruction]:
    """Accept if the word at `offset` is one of these, else fall through."""
    load: list[_Instruction] = [(_LOAD_WORD, 0, 0, offset)]
    for word in words:
        load += [(_JUMP_EQUAL, 0, 1, word), (_RETURN, 0, 0, _ACCEPT)]
    return load


def _bounded(program: list[_Instruction], room: int = _FILTER_MAX) -> list[_Instruction]:
    """End the program by dropping the rest; one too long for the kernel accepts all instead, and Python sorts out."""
    return [*program, *_DROP_ALL] if len(program) < room else [(_RETURN, 0, 0, _ACCEPT)]


_DROP_ALL: list[_Instruction] = [(_RETURN, 0, 0, _DROP)]


def _attach(raw: socket.socket, program: list[_Instruction]) -> None:
    """Set a socket's filter; none where the kernel has no option memory for it, and then Python sorts out.

    Kernels before 6.8 have 20 KiB per socket (net.core.optmem_max), the filter in force included.
    """
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    argument = struct.pack("HL", len(program), ctypes.addressof(code))
    if not _try_attach(raw, argument):
        raw.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        _try_attach(raw, argument)


def _try_attach(raw: socket.socket, argument: bytes) -> bool:
    try:
        raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.ENOBUFS):
            return False
        raise
    return True
