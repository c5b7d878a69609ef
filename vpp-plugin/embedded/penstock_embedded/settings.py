"""What a data-plane process is started with; everything else arrives over the control socket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from penstock_node.constants import TUN_NAME
from pydantic import BaseModel, ConfigDict, Field

from penstock_embedded.sizing import FlowTableSize

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- where POSIX shared memory lives, not a place for temporary files
WORKERS_MAX = 16  # threads that can share an arena


class Settings(BaseModel):
    """Start parameters of one embedded data plane; a change needs a restart of the process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_dir: Annotated[Path, Field(description="directory of the control socket")] = Path("/run/penstock")
    shm_dir: Annotated[Path, Field(description="shared-memory directory: arena, frames, actions")] = SHARED_MEMORY
    flow_table_size: FlowTableSize = None
    max_vips: Annotated[int, Field(ge=1, le=65_535, description="core VIPs that the arena has room for")] = 1024
    max_slots: Annotated[
        int, Field(ge=8, le=1_048_576, description="slots that all VIPs share; a VIP takes twice its backends")
    ] = 65_536
    queues: Annotated[
        int, Field(ge=1, le=WORKERS_MAX, description="TUN queues, each with a packet thread of its own")
    ] = 1
    allowed_uids: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(max_length=16, description="user ids that may use the control socket, beside this process's own"),
    ] = ()
    group: Annotated[
        int | None, Field(ge=0, description="group id that may open the control socket and read frames")
    ] = None
    allowed_vips: Annotated[
        Path | None, Field(description="file of the operator's with the addresses that VIPs may have; none: all")
    ] = None
    agent_state_dir: Annotated[
        Path | None, Field(description="directory of the agent's state, for members of the group to write")
    ] = None
    device: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,15}$", description="name of the TUN device")] = TUN_NAME
    interfaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=15)], ...],
        Field(max_length=64, description="interfaces on which traffic arrives; none: those of the default routes"),
    ] = ()
    shortcut: Annotated[
        bool, Field(description="take plain packets to the TUN from where they arrive, past the node's filters")
    ] = True
    grace_seconds: Annotated[
        float, Field(ge=0, le=3600, description="how long weights stay in force after the agent's last sign of life")
    ] = 30.0

    @property
    def socket_path(self) -> Path:
        """Where the control socket lies."""
        return self.run_dir / "control.sock"

    @property
    def state_path(self) -> Path:
        """Where the last applied state is kept for a restart of the process; as short-lived as the arena."""
        return self.shm_dir / "penstock.state"

    @property
    def arena_path(self) -> Path:
        """Where the flow arena lies."""
        return self.shm_dir / "penstock.arena"

    def trusted_uids(self) -> frozenset[int]:
        """Return the peers that the control socket answers."""
        return frozenset(self.allowed_uids) | {os.geteuid()}
