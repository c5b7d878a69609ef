"""AddressPool: addresses that VIPs may have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock_api.fields import (
    SET,
    Block,
    IPAddress,
    LabelName,
    unique,
)
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo, ready_columns
from penstock_api.objects import KubeObject, ShortText, Status


class PoolSpec(Model):
    """Which addresses, and who may have them."""

    addresses: Annotated[tuple[Block, ...], Field(min_length=1, max_length=64, json_schema_extra=SET), unique("block")]
    """Networks, ranges and single addresses."""
    auto_assign: bool = True
    """Whether VIPs that name no pool are given addresses of this one."""
    namespaces: (
        Annotated[tuple[LabelName, ...], Field(min_length=1, max_length=64, json_schema_extra=SET), unique("namespace")]
        | None
    ) = None
    """Namespaces whose VIPs may have these addresses. Default: all."""

    addresses_per_namespace: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Most addresses of the pool that the VIPs of one namespace may hold together. Default: no limit."""

    def contains(self, address: IPAddress) -> bool:
        """Tell whether an address lies in the pool."""
        return any(address in block for block in self.addresses)

    def allows(self, namespace: str) -> bool:
        """Tell whether VIPs of a namespace may have addresses of the pool."""
        return self.namespaces is None or namespace in self.namespaces


class PoolSummary(Model):
    """The columns of `kubectl get pool`."""

    addresses: ShortText = ""
    """Networks and ranges, the first three of them."""
    used: ShortText = ""
    """Addresses held by VIPs."""
    free: ShortText = ""
    """Addresses left."""


class PoolStatus(Status):
    """How full the pool is."""

    summary: PoolSummary = PoolSummary()
    """The columns of `kubectl get pool`."""


class AddressPool(KubeObject):
    """Addresses that the network routes to the load-balancing nodes, from which VIPs are given theirs."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="AddressPool",
        plural="addresspools",
        singular="addresspool",
        short_names=("pool",),
        namespaced=False,
        columns=(
            Column("Addresses", ".status.summary.addresses"),
            Column("AutoAssign", ".spec.autoAssign", "boolean"),
            Column("Used", ".status.summary.used"),
            Column("Free", ".status.summary.free"),
            *ready_columns(),
            AGE_COLUMN,
        ),
    )

    kind: Literal["AddressPool"] = "AddressPool"
    spec: PoolSpec
    """Which addresses, and who may have them."""
    status: PoolStatus = PoolStatus()
    """How full the pool is."""
