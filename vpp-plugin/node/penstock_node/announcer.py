"""Answers ARP and neighbour discovery for addresses that no interface has, and says when they move here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from penstock_node import neighbours, netlink
from penstock_node.desired import Address
from penstock_node.errors import AnnounceError, NodeError
from penstock_node.ports import Port

ANNOUNCE_AT = (0.0, 0.2, 1.0, 2.0, 4.0)
"""Seconds after taking an address over at which it is announced; several, because each may be lost."""

WATCH_SECONDS = 1.0
"""How often interfaces are looked at: a new MAC address or a link that came back needs fresh announcements."""

_PROBE_SECONDS = 1.0
_BATCH = 64  # announcements in a row before others of the event loop have their turn


class Announcer:
    """Responder and announcer on raw sockets (CAP_NET_RAW); an async context manager of the running loop.

    An address that another node is heard to announce is *lost*: it is answered no more until it leaves the
    set given to `update` and comes back, or is reclaimed. `on_lost` is called in the loop, once per loss.

    Two nodes that take the same address at the same moment hear each other while both still announce: the
    one with the higher MAC address keeps it. Otherwise the last to announce has it.
    """

    def __init__(
        self,
        *,
        on_lost: Callable[[Address], None] | None = None,
        announce_at: Sequence[float] = ANNOUNCE_AT,
    ) -> None:
        self._on_lost = on_lost
        self._announce_at = tuple(announce_at)
        self._ports: dict[str, Port] = {}
        self._interfaces: tuple[str, ...] = ()
        self._held: set[Address] = set()
        self._lost: set[Address] = set()
        self._taking: dict[Address, asyncio.Task[None]] = {}  # still being announced, by which task
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._spawn(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in list(self._ports):
            self._close(name)
        self._held.clear()

    def update(self, interfaces: Iterable[str], addresses: Iterable[Address]) -> None:
        """Announce exactly these addresses on these interfaces (empty: those of the default routes).

        Idempotent: addresses that are new are announced several times, others are left alone, and those
        no longer named are no longer answered. Raises `AnnounceError` for an interface that cannot be
        used; the others are served all the same.
        """
        wanted = set(addresses)
        self._lost &= wanted
        new = wanted - self._held - self._lost
        self._held = wanted - self._lost
        self._interfaces = tuple(interfaces) or (_default_interfaces() if wanted else ())
        for name in self._ports.keys() - set(self._interfaces):
            self._close(name)
        missing = [name for name in self._interfaces if name not in self._ports]
        problems = self._serve()
        opened = [name for name in missing if name in self._ports]
        self._take(self._held if opened else new)
        if not self._interfaces and wanted:
            problems.append("no default route; name the interfaces to announce on")
        if problems:
            raise AnnounceError("; ".join(problems))

    def reclaim(self, addresses: Iterable[Address]) -> None:
        """Take lost addresses back, as if they were new. Raises as `update` does."""
        back = self._lost & set(addresses)
        self.update(self._interfaces, (self._held | self._lost) - back)
        self.update(self._interfaces, self._held | self._lost | back)

    @property
    def lost(self) -> frozenset[Address]:
        """Addresses of the current set that another node has taken."""
        return frozenset(self._lost)

    def _serve(self) -> list[str]:
        """Open what is missing, set filters and groups everywhere, and return what failed."""
        problems = []
        for name in self._interfaces:
            try:
                if name not in self._ports:
                    self._open(name)
                self._ports[name].listen(self._held)
            except AnnounceError as error:
                problems.append(str(error))
        return problems

    def _open(self, name: str) -> None:
        port = Port(name, self._handle)
        self._ports[name] = port
        for each in port.sockets:
            asyncio.get_running_loop().add_reader(each, port.receive, each)

    def _close(self, name: str) -> None:
        port = self._ports.pop(name)
        for each in port.sockets:
            asyncio.get_running_loop().remove_reader(each)
        port.close()

    def _handle(self, port: Port, frame: bytes) -> None:
        heard = neighbours.read(frame)
        if heard is None or heard.target not in self._held:
            return
        if isinstance(heard, neighbours.Question):
            if heard.asker_mac not in self._own_macs():  # our own probe may come back by another interface
                port.send(neighbours.answer(heard, port.mac))
        elif heard.mac not in self._own_macs():
            self._hear_claim(port, heard)

    def _hear_claim(self, port: Port, claim: neighbours.Claim) -> None:
        if claim.target in self._taking and claim.mac < port.mac:
            return  # both are taking it over, and the other will yield to what we still announce
        self._held.discard(claim.target)
        self._taking.pop(claim.target, None)
        self._lost.add(claim.target)
        if self._on_lost is not None:
            self._on_lost(claim.target)

    def _own_macs(self) -> set[bytes]:
        return {port.mac for port in self._ports.values()}

    def _take(self, addresses: Iterable[Address]) -> None:
        batch = tuple(addresses)
        if batch:
            task = self._spawn(self._announce(batch))
            self._taking.update(dict.fromkeys(batch, task))

    async def _announce(self, batch: Sequence[Address]) -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            for moment in self._announce_at:
                await asyncio.sleep(max(0.0, start + moment - loop.time()))
                ours = [address for address in batch if self._taking.get(address) is task and address in self._held]
                await self._send_all(ours, neighbours.announcements)
        finally:
            for address in batch:
                if self._taking.get(address) is task:
                    del self._taking[address]

    async def _send_all(
        self, addresses: Sequence[Address], frames: Callable[[Address, bytes], Iterable[bytes]]
    ) -> None:
        for position, address in enumerate(addresses):
            if position % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
            for port in self._ports.values():
                for frame in frames(address, port.mac):
                    port.send(frame)

    async def _watch(self) -> None:
        """Follow interfaces that vanish, come back, or change their address."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for name in [name for name, port in self._ports.items() if not port.unchanged()]:
                self._close(name)
            missing = [name for name in self._interfaces if name not in self._ports]
            if missing:
                self._serve()  # what still fails is tried again, and reported by the next update
            if any(name in self._ports and self._ports[name].running for name in missing):
                self._spawn(self._return())

    async def _return(self) -> None:
        """After a break of the link: ask first, since another node may have taken over unheard."""
        await self._send_all(tuple(self._held), lambda address, mac: (neighbours.probe(address, mac),))
        await asyncio.sleep(_PROBE_SECONDS)
        self._take(self._held)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _default_interfaces() -> tuple[str, ...]:
    """Ask the kernel in a thread of its own: pyroute2 runs an event loop, which cannot be nested in ours."""
    found: list[tuple[str, ...]] = []

    def ask() -> None:
        with suppress(NodeError):
            found.append(netlink.default_interfaces())

    thread = threading.Thread(target=ask, name="default-interfaces")
    thread.start()
    thread.join()
    return found[0] if found else ()
