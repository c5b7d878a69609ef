"""Requests for a data plane of an older release: without the fields and values that it would refuse. Computation only.

While a release is rolled out, agents are replaced before data planes. A data plane refuses what it does not know, and
nothing of such a request would take effect; so it gets what comes closest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock_embedded.messages import PROTOCOL_REVISION

Json = dict[str, Any]


def lowered(state: Json, revision: int) -> Json:
    """Return a desired state, as JSON, in the words of an older revision."""
    for newer in range(PROTOCOL_REVISION, revision, -1):
        state = {**state, "vips": [_LOWERINGS[newer](vip) for vip in state["vips"]]}
    return state


def _to_1(vip: Json) -> Json:
    """Refusals were not to be chosen; a backend that is not ready drained."""
    fields = {name: value for name, value in vip.items() if name not in ("when_no_backends", "when_no_flow")}
    return fields | {"backends": [_to_1_backend(backend) for backend in vip["backends"]]}


def _to_1_backend(backend: Json) -> Json:
    return backend | {"state": "draining"} if backend["state"] == "unready" else backend


_LOWERINGS: Mapping[int, Callable[[Json], Json]] = {2: _to_1}
"""By revision: what turns a VIP of it into one of the revision before."""
