"""The L2 announcer as the data plane uses it: raw sockets only once there is something to announce."""

from __future__ import annotations

import structlog
from penstock_node import Address, AnnounceError, Announcer

from penstock_embedded.messages import Announcement, Error

log = structlog.get_logger()


class Announcements:
    """Keeps an announcer at what is desired; of the event loop that calls it."""

    def __init__(self) -> None:
        self._announcer: Announcer | None = None
        self._desired = Announcement()

    async def update(self, desired: Announcement) -> tuple[Error, ...]:
        """Announce exactly this; addresses that were lost are taken back. Returns what cannot be announced."""
        if self._announcer is None and not desired.addresses:
            return ()
        try:
            if self._announcer is None:
                self._announcer = await Announcer(on_lost=_note_loss).__aenter__()
            self._desired = desired
            self._announcer.update(desired.interfaces, desired.addresses)
            if self._announcer.lost:
                self._announcer.reclaim(self._announcer.lost)
        except (AnnounceError, OSError) as error:
            fix = "name interfaces that are up, and give the process CAP_NET_RAW"
            return (Error(code="internal", field="announcement", message=str(error), fix=fix),)
        return ()

    @property
    def lost(self) -> tuple[Address, ...]:
        """Addresses that another node was heard to announce."""
        return tuple(sorted(self._announcer.lost, key=str)) if self._announcer is not None else ()

    async def close(self) -> None:
        """Fall silent."""
        if self._announcer is not None:
            announcer, self._announcer = self._announcer, None
            await announcer.__aexit__(None, None, None)


def _note_loss(address: Address) -> None:
    log.warning("another node announces an address of ours: given up until the next apply", address=str(address))
