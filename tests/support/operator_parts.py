"""A reconciler whose writes go nowhere."""

from __future__ import annotations

from typing import Any

from penstock_operator.plan.daemonsets import Installation
from penstock_operator.reconcile import Reconciler
from penstock_operator.store import Store


class Nowhere:
    """Takes what a writer and a recorder of Events take."""

    async def status(self, *_: Any) -> bool:
        return True

    async def raw_status(self, *_: Any) -> bool:
        return True

    async def data_plane(self, *_: Any) -> None:
        return None

    async def allowed(self, *_: Any) -> None:
        return None

    def record(self, *_: Any, **__: Any) -> None:
        return None


def reconciler_of(store: Store) -> Reconciler:
    nowhere: Any = Nowhere()
    installation = Installation("penstock-system", "penstock/embedded:test", "penstock/agent:test")
    return Reconciler(store, nowhere, nowhere, installation, lambda _key, _seconds: None)
