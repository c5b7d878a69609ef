"""Whether the other nodes announce in place of one whose data plane is about to stop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from penstock_api import VipReport
from penstock_api.fields import IPAddress


@dataclass(frozen=True)
class ServedVip:
    """A VIP of a DataPlane, and what nodes report of it."""

    key: str
    addresses: tuple[IPAddress, ...]
    reports: Mapping[str, VipReport]  # by node name


def still_announced(node: str, vips: Iterable[ServedVip], others: Collection[str]) -> str:
    """Return which address waits for its handover from `node` to one of `others`; empty when all are handed over.

    An address that none of the others forwards is not waited for: nobody can take it.
    """
    for vip in vips:
        reports = {name: report for name, report in vip.reports.items() if name in others and not report.error}
        mine = vip.reports.get(node)
        for address in vip.addresses:
            if mine is not None and address in mine.announces:
                return f"{address} (VIP {vip.key}) is still announced by node {node}"
            if reports and not any(address in report.announces for report in reports.values()):
                return f"{address} (VIP {vip.key}) is not announced by another node yet"
    return ""
