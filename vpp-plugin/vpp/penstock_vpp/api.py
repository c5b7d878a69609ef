"""The plugin's binary API, as Python calls that raise one error. Blocking; one thread at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpp_papi import VPPApiClient, VPPIOError
from vpp_papi.vpp_transport_socket import VppTransportSocketIOError

CLIENT_NAME = "penstock"
READ_SECONDS = 10  # an apply of many backends, at a busy VPP

# VPP's return values as the control protocol's codes.
CODES = {-6: "invalid", -7: "invalid", -81: "conflict", -126: "unsupported", -162: "exhausted"}


class VppError(Exception):
    """VPP refused something or is away; `code` is one of the control protocol's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class VppAwayError(VppError):
    """VPP does not answer on its socket."""

    def __init__(self, socket: Path, reason: object) -> None:
        super().__init__("unreachable", f"{socket}: VPP does not answer: {reason}")


@dataclass(frozen=True)
class Instance:
    """One run of the load balancer in VPP."""

    instance_id: str
    directory: Path
    enabled: bool  # False after `disable`
    attached_flows: int
    workers: int
    policy: str  # `lb rl agent <policy>`: what agents are to use


class Api:
    """A connection to VPP, made at the first call and again after VPP has been away."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client: Any = None

    def close(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(VPPIOError, OSError):  # VPP may be gone already
                client.disconnect()

    def instance(self) -> Instance:
        """Return who runs, or ran last. Raises VppError when the load balancer was never enabled in VPP."""
        reply = self._call("lb_rl_get")
        if not reply.instance_id:
            fix = "give startup.conf an `lb-rl` section"
            raise VppError("internal", f"{self._socket}: the load balancer was never enabled in VPP; {fix}")
        return Instance(
            instance_id=reply.instance_id,
            directory=Path(reply.directory),
            enabled=reply.enabled,
            attached_flows=reply.attached_flows,
            workers=reply.workers,
            policy=reply.policy,
        )

    def enable(self) -> None:
        """Enable the load balancer again, with the settings that it had."""
        self._call("lb_rl_enable", directory="")

    def set_node(self, scheduler_key: bytes, nodes: int) -> None:
        """Set what all nodes of a DataPlane share."""
        self._call("lb_rl_node_set", scheduler_key=scheduler_key, nodes=nodes)

    def set_sources(self, sources: Sequence[Mapping[str, Any]]) -> None:
        """Set the complete NAT sources."""
        self._call("lb_rl_sources_set", count=len(sources), sources=list(sources))

    def set_vip(self, fields: Mapping[str, Any]) -> None:
        """Make a VIP be as its fields say."""
        self._call("lb_rl_vip_set", **fields)

    def remove_vip(self, number: int) -> None:
        """Drain a VIP, then remove it."""
        self._call("lb_rl_vip_remove", id=number)

    def publish(self) -> None:
        """Publish frames now."""
        self._call("lb_rl_publish")

    def disable(self) -> None:
        """Remove everything from VPP and the shared-memory directory."""
        self._call("lb_rl_disable", withdraw=True)

    def vips(self) -> list[Any]:
        """Return all VIPs, those being removed included."""
        return list(self._call("lb_rl_vip_dump", id=0))

    def backends(self, number: int) -> list[Any]:
        """Return the backends of a VIP."""
        return list(self._call("lb_rl_backend_dump", vip=number))

    def has_interface(self, name: str) -> bool:
        """Tell whether VPP has an interface of this name."""
        found = self._call("sw_interface_dump", name_filter_valid=True, name_filter=name)
        return any(each.interface_name == name for each in found)

    def command(self, line: str) -> str:
        """Run a command of VPP's command line and return what it prints. Raises VppError with it when it fails."""
        return str(self._call("cli_inband", cmd=line).reply)

    def stats(self) -> Any:
        """Return the counters."""
        return self._call("lb_rl_stats_get")

    def _connected(self) -> Any:
        if self._client is None:
            client = VPPApiClient(bootstrapapi=True, server_address=str(self._socket), read_timeout=READ_SECONDS)
            client.connect(CLIENT_NAME)
            self._client = client
        return self._client

    def _call(self, name: str, **fields: Any) -> Any:
        try:
            reply = getattr(self._connected().api, name)(**fields)
        except (VPPIOError, VppTransportSocketIOError, OSError) as error:
            self.close()
            raise VppAwayError(self._socket, error) from error
        except AttributeError as error:
            self.close()
            raise VppError("unsupported", f"{self._socket}: VPP has no {name}: load the lb_rl plugin") from error
        if reply is None:
            self.close()
            raise VppAwayError(self._socket, "no reply")
        retval = getattr(reply, "retval", 0)
        if retval != 0:
            said = getattr(reply, "message", "") or getattr(reply, "reply", "").strip()
            raise VppError(CODES.get(retval, "internal"), said or f"{name}: error {retval}")
        return reply
