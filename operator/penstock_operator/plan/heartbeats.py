"""Which agents live: those whose Lease is renewed, on the operator's clock alone.

Times in Leases are never compared with ours. A pause of ours, or of the API server, counts against nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SILENT_AFTER = 30.0  # seconds without a renewal; agents renew every second
GAP = 15.0  # seconds between two looks after which renewals may have been missed


@dataclass(frozen=True)
class Beats:
    """DataPlaneNodes by what their Leases show; one without a Lease is in neither."""

    beating: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()


NO_BEATS = Beats()


@dataclass
class Heartbeats:
    """Renewals as they were seen, by the name of the DataPlaneNode."""

    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _looked_at: float = float("-inf")

    def look(self, renewals: Mapping[str, str], now: float) -> Beats:
        """Take in all Leases as they are at `now` (seconds of any clock); returns who lives."""
        missed = now - self._looked_at > GAP
        before, self._looked_at = self._seen, now
        self._seen = {
            name: (renewal, now if missed or before.get(name, ("", 0.0))[0] != renewal else before[name][1])
            for name, renewal in renewals.items()
        }
        silent = frozenset(name for name, (_, at) in self._seen.items() if now - at >= SILENT_AFTER)
        return Beats(frozenset(self._seen) - silent, silent)
