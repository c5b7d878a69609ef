"""The veth pair between the node's kernel and VPP, and what leads packets onto it. Blocking; one thread at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import structlog
from penstock_embedded.messages import Address, NatSource
from penstock_embedded.plumbing import Plumbed, plumb_device
from penstock_embedded.repairs import Repairs
from penstock_node import Veth
from penstock_node import withdraw as withdraw_node

from penstock_vpp import cards
from penstock_vpp.api import Api, VppError
from penstock_vpp.startup import CARDS_NAME, WIRE_NAME, CardType, host_interface, leave_wire

log = structlog.get_logger()

STARTING_SECONDS = 5.0  # VPP executes the commands that make its interface a moment after its first answer


class Wire:
    """Keeps the node as VPP needs it; the node is what it was last told to be until somebody withdraws it."""

    def __init__(self, api: Api, vpp_dir: Path, interfaces: tuple[str, ...], *, lead_vips: bool = True) -> None:
        self._api = api
        self._lead_vips = lead_vips
        self._veth = Veth()
        self._commands = vpp_dir / WIRE_NAME
        self._cards = vpp_dir / CARDS_NAME
        self._arrivals = interfaces
        self._wanted: tuple[frozenset[Address], tuple[NatSource, ...]] | None = None
        self._repairs = Repairs()
        self.blocked: tuple[str, ...] = ()  # firewall chains that drop what is forwarded
        self._missing_since: float | None = None
        self._withdrawn = False

    def lead(self, addresses: Iterable[Address], sources: Iterable[NatSource]) -> Plumbed:
        """Have the node lead packets to these addresses and NAT ports to VPP. What fails is reported, not raised.

        Where VPP has cards of its own for clients, VIPs are left out: in VPP the wire is the way to backends only.
        """
        self._wanted = (frozenset(addresses if self._lead_vips else ()), tuple(sources))
        self._withdrawn = False
        self._repairs.begin()
        plumbed = plumb_device(self._veth, *self._wanted, interfaces=self._arrivals)
        self.blocked = plumbed.blocked
        if plumbed.new_device:
            self.connect()
        return plumbed

    def repair(self) -> None:
        """Put back what others changed on the node."""
        if self._wanted is not None and self._repairs.due():
            for error in self.lead(*self._wanted).errors:
                log.warning("not all of the node is as desired", error=error.message)

    def connect(self) -> None:
        """Have VPP take its end anew, as its start does: an interface of an earlier pair is dead. Raises VppError."""
        name = host_interface(self._veth.peer)
        self._leave()
        self._api.command(f"exec {self._commands}")
        log.info("VPP has taken its end of the wire", interface=name)

    def check(self) -> None:
        """Raise VppError if VPP lacks its end, or a card; one that started without the pair is helped before."""
        name = host_interface(self._veth.peer)
        if self._withdrawn or self._api.has_interface(name):
            self._missing_since = None
            self._check_cards()
            return
        now = time.monotonic()
        self._missing_since = self._missing_since or now
        if now - self._missing_since < STARTING_SECONDS:
            raise VppError("unreachable", f"{name}: VPP has not taken its end of the wire yet")
        self.connect()

    def _check_cards(self) -> None:
        for name, card, _ in self._taken():
            if not self._api.has_interface(name):
                message = f"{card}: VPP has not taken this card; the log of container vpp says why"
                raise VppError("unreachable", message)

    def _taken(self) -> list[list[str]]:
        """Return what VPP was started with: its interface's name, the card, and the type of each."""
        if self._lead_vips or not self._cards.exists():
            return []
        return [line.split() for line in self._cards.read_text().splitlines()]

    def withdraw(self, directory: Path, *, vpp_is_away: bool = False) -> None:
        """Remove everything from the node, and give it back its cards. Raises penstock_node.NodeError."""
        self._wanted = None
        self._withdrawn = True
        if not vpp_is_away:
            self._leave()
        for name, card, kind in self._taken():
            # The program that it put before the driver goes with the interface, but would not go with VPP.
            if kind != CardType.AF_XDP:
                continue
            if vpp_is_away:
                cards.take_program_off(card)
            elif self._api.has_interface(name):
                self._api.command(f"delete interface af_xdp {name}")
        cards.give_back(directory)
        withdraw_node()

    def _leave(self) -> None:
        if not self._api.has_interface(host_interface(self._veth.peer)):
            return
        for command in leave_wire(self._veth):
            self._api.command(command)
