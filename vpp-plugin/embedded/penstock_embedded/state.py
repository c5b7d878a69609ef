"""What is in force, and how the next process learns of it: names and plumbing that the arena does not hold.

The file lies beside the arena, on the same tmpfs: both outlive a process and neither outlives the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_embedded.messages import Address, Announcement, NatSource, Vip

log = structlog.get_logger()


class State(BaseModel):
    """What was applied with success; None where nothing has been yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    generation: int | None = None
    scheduler_key: str | None = None
    nodes: int | None = None
    nat_sources: tuple[NatSource, ...] | None = None
    announcement: Announcement = Announcement()
    vips: dict[str, Vip] = {}  # by id
    removing: dict[str, Vip] = {}  # by id: still draining
    backend_names: dict[int, str] = {}  # by number in the core, draining ones included

    def addresses(self) -> frozenset[Address]:
        """Return the addresses to be attracted: draining VIPs still have clients."""
        return frozenset(each for vip in (*self.vips.values(), *self.removing.values()) for each in vip.addresses)

    def addresses_beside(self, sources: Iterable[NatSource]) -> frozenset[Address]:
        """Return those that are no NAT sources: a VIP that gives an address up for one has it until it is changed."""
        return self.addresses() - {source.address for source in sources}

    def key_of(self, identifier: str) -> str:
        """Return the name of a VIP that people know, or its id."""
        vip = self.vips.get(identifier) or self.removing.get(identifier)
        return vip.key if vip is not None else identifier


def load(path: Path) -> State:
    """Return the remembered state; an empty one when there is none, or none that can be used."""
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return State()
    except (OSError, ValidationError) as error:
        log.warning("remembered state ignored: the agent will send it again", path=str(path), error=str(error))
        return State()


def save(path: Path, state: State) -> None:
    """Replace the remembered state, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(state.model_dump_json())
    temporary.replace(path)


def forget(path: Path) -> None:
    """Remove the remembered state."""
    path.unlink(missing_ok=True)
