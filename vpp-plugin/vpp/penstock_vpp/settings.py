"""What the control process beside a VPP is started with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Start parameters; sizes and the shared-memory directory are startup.conf's, in its `lb-rl` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_dir: Annotated[Path, Field(description="directory of the control socket")] = Path("/run/penstock")
    vpp_socket: Annotated[Path, Field(description="VPP's binary API socket")] = Path("/run/vpp/api.sock")
    allowed_uids: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(max_length=16, description="user ids that may use the control socket, beside this process's own"),
    ] = ()
    group: Annotated[int | None, Field(ge=0, description="group id that may open the control socket")] = None

    @property
    def socket_path(self) -> Path:
        """Where the control socket lies."""
        return self.run_dir / "control.sock"

    def trusted_uids(self) -> frozenset[int]:
        """Return the peers that the control socket answers."""
        return frozenset(self.allowed_uids) | {os.geteuid()}
