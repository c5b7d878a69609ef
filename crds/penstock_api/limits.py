"""What the admin of a DataPlane lets VIPs ask for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock_api.model import Model
from penstock_api.rlpolicy import TableSize


class VipLimits(Model):
    """Largest values that VIPs of a DataPlane get. One that asks for more gets as much, and its status says so."""

    max_tcp_seconds: Annotated[int, Field(ge=120, le=604_800)] = 604_800
    """Of a VIP's `timeouts`, those of TCP."""
    max_udp_seconds: Annotated[int, Field(ge=10, le=86_400)] = 86_400
    """Of a VIP's `timeouts`, those of UDP."""
    max_drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 86_400
    """Of a VIP's `drainSeconds`."""
    max_table_size: TableSize = 1_048_573
    """Of a policy's `tableSize`, for VIPs that use a Maglev table."""
    max_backends: Annotated[int, Field(ge=1, le=1024)] = 1024
    """Backends of one port of a VIP; the rest are left out, those that take no new flows first."""
