"""What is in force, and how the next process learns of it: names and plumbing that the arena does not hold.

The file lies beside the arena, on the same tmpfs: both outlive a process and neither outlives the machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_embedded import files
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
        files.sweep(path)
        content = files.read(path)
        return State.model_validate_json(content) if content is not None else State()
    except (OSError, files.UnusableFileError, ValidationError, RecursionError) as error:
        aside = files.set_aside(path)
        log.warning(
            "remembered state ignored: the agent will send it again",
            path=str(path),
            error=str(error),
            set_aside=str(aside) if aside else "not possible",
        )
        return State()


class Keeper:
    """Keeps the last state in a file. A state that cannot be written is written later; it is never fatal."""

    def __init__(self) -> None:
        self.problem = ""  # why the file does not have the last state, "" when it has
        self._unsaved: tuple[Path, State] | None = None

    def save(self, path: Path, state: State) -> None:
        """Replace the remembered state, whole or not at all."""
        self._unsaved = (path, state)
        before, self.problem = self.problem, ""
        try:
            files.replace(path, state.model_dump_json().encode())
        except OSError as error:
            self.problem = f"{path}: {error.strerror}; a restart needs the agent to name VIPs: make room there"
        else:
            self._unsaved = None
        if self.problem and not before:
            log.warning("state is not kept", problem=self.problem)

    def again(self) -> None:
        """Write what could not be written before."""
        if self._unsaved is not None:
            self.save(*self._unsaved)

    def forget(self, path: Path) -> None:
        """Remove the remembered state."""
        self._unsaved, self.problem = None, ""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("remembered state stays", path=str(path), error=str(error))
