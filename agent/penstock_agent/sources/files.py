"""Source `files`: the same YAML as for kubectl, in a directory that is watched.

LoadBalancerVIPs, RLPolicies and at most one DataPlane; other groups' objects are skipped. A change is taken
whole: one bad file, and the last good state of all of them stays in force while the error names file, field and
fix.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TypeVar

import structlog
import watchfiles
from penstock_api.dataplane import DataPlane
from penstock_api.dataplanenode import DataPlaneNodeSpec, NodeNatSource
from penstock_api.errors import KindError
from penstock_api.fields import is_unicast
from penstock_api.objects import KubeObject
from penstock_api.reading import parse_yaml
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP

from penstock_agent.desired import Name, Served, Snapshot
from penstock_agent.errors import ConfigError
from penstock_agent.files import StateStore

log = structlog.get_logger(__name__)

SUFFIXES = (".yaml", ".yml")
ANY_NETWORK = (ip_network("0.0.0.0/0"), ip_network("::/0"))
SCHEDULER_KEY = "scheduler-key"
MACHINE_ID = Path("/etc/machine-id")
RETRY_SECONDS = 1.0  # until a directory that vanished is looked for again
Address = IPv4Address | IPv6Address
Kind = TypeVar("Kind", bound=KubeObject)


class FilesSource:
    """Reads a directory, or one file, again whenever something in it changes."""

    def __init__(
        self,
        path: Path,
        on_change: Callable[[], None],
        *,
        store: StateStore,
        node_name: str,
        node_addresses: tuple[Address, ...] = (),
    ) -> None:
        self._path = path
        self._on_change = on_change
        self._scheduler_key = _scheduler_key(store)
        self._node_name = node_name
        self._node_addresses = node_addresses
        self._snapshot: Snapshot | None = None
        self._error = ""
        self._read_at = time.monotonic()

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good state of the files."""
        return self._snapshot

    @property
    def error(self) -> str:
        """What is wrong with them now."""
        return self._error

    def ages(self) -> dict[str, float]:
        """Seconds since the files were last read without error."""
        return {"files": time.monotonic() - self._read_at if self._error else 0.0}

    def follow(self, services: frozenset[Name]) -> None:
        """Do nothing: there are no Services without Kubernetes."""

    async def run(self) -> None:
        """Read, then watch."""
        while True:
            await self.load()
            with contextlib.suppress(FileNotFoundError):
                async for _ in watchfiles.awatch(self._path, debounce=100, step=50, rust_timeout=1000):
                    await self.load()
            await asyncio.sleep(RETRY_SECONDS)

    async def load(self) -> None:
        """Read all files; on an error keep what was. In a thread, for much YAML takes seconds."""
        try:
            snapshot = await asyncio.to_thread(self._read)
        except ConfigError as error:
            if str(error) != self._error:
                log.error("files not taken, the last good state stays", error=str(error))  # noqa: TRY400 - for people
            self._error = str(error)
        else:
            self._error, self._read_at = "", time.monotonic()
            if snapshot != self._snapshot:
                self._snapshot = snapshot
                log.info("files read", path=str(self._path), vips=len(snapshot.vips), policies=len(snapshot.policies))
        self._on_change()

    def _read(self) -> Snapshot:
        objects = _parse_files(self._path)
        vips = _named(objects, LoadBalancerVIP)
        served = []
        for where, vip in vips:
            if vip.spec.addresses is None:
                raise ConfigError(f"{where}: {vip.key}: spec.addresses: is required in files; list the VIP's addresses")
            if vip.spec.backends.service is not None:
                raise ConfigError(
                    f"{where}: {vip.key}: spec.backends.service: there are no Services without Kubernetes; "
                    "list spec.backends.endpoints"
                )
            uid = vip.metadata.uid or f"file:{vip.key}"
            named = vip.model_copy(update={"metadata": vip.metadata.model_copy(update={"uid": uid})})
            served.append(Served(named, vip.spec.addresses))
        dataplanes = _named(objects, DataPlane)
        if len(dataplanes) > 1:
            raise ConfigError(f"{dataplanes[1][0]}: a second DataPlane; one process is one DataPlane: remove either")
        return Snapshot(
            node=self._node(dataplanes[0][1] if dataplanes else None),
            vips=tuple(served),
            policies={(p.metadata.namespace, p.metadata.name): p.spec for _, p in _named(objects, RLPolicy)},
            vip_addresses=frozenset(address for item in served for address in item.addresses),
        )

    def _node(self, dataplane: DataPlane | None) -> DataPlaneNodeSpec:
        spec = (dataplane or DataPlane.model_validate({"metadata": {"name": "default"}})).spec
        addresses = self._node_addresses or default_addresses()
        for address in addresses:
            if not is_unicast(address):
                raise ConfigError(f"node_addresses: {address} cannot be reached from backends; name a routable address")
        return DataPlaneNodeSpec(
            data_plane_name=dataplane.metadata.name if dataplane else "default",
            node_name=self._node_name or "localhost",
            scheduler_key=self._scheduler_key,
            features=spec.features,
            nat_source=NodeNatSource(
                addresses=addresses,
                port_first=spec.nat_source.port_first,
                port_last=spec.nat_source.port_last,
            ),
            announcement=spec.announcement,
            # Who writes these files owns the machine: without a DataPlane nobody restricts anybody.
            static_endpoint_cidrs=spec.static_endpoint_cidrs if dataplane else ANY_NETWORK,
        )


def _parse_files(path: Path) -> list[tuple[str, KubeObject]]:
    try:
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
        objects = [(str(file), obj) for file in files for obj in _parse_file(file)]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; check the path and its permissions") from error
    seen: dict[tuple[str, str], str] = {}
    for where, obj in objects:
        first = seen.setdefault((obj.info.kind, obj.key), where)
        if first is not where:
            raise ConfigError(f"{where}: {obj.info.kind} {obj.key} is in {first}, too; remove one of them")
    return objects


def _parse_file(file: Path) -> list[KubeObject]:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"), foreign="skip")
    except (KindError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _named(objects: Iterable[tuple[str, KubeObject]], kind: type[Kind]) -> list[tuple[str, Kind]]:
    return [(where, obj) for where, obj in objects if isinstance(obj, kind)]


def _scheduler_key(store: StateStore) -> str:
    """Keep one key for ever: with another one, every client would change its backend.

    It follows from the machine's id where there is one, so that it stays the same where no disk keeps it.
    """
    key = store.load_line(SCHEDULER_KEY, re.compile("[0-9a-f]{32}"))
    if key is None:
        key = _machine_key() or secrets.token_hex(16)
        store.put(SCHEDULER_KEY, key)
    return key


def _machine_key() -> str:
    try:
        machine = MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(f"penstock scheduler key {machine}".encode()).hexdigest()[:32] if machine else ""


def default_addresses() -> tuple[Address, ...]:
    """Find the addresses that this machine sends from by default, one per family."""
    found: list[Address] = []
    for family, remote in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # Connecting a datagram socket sends nothing: it asks the routing table.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote, 9))
            address = ip_address(probe.getsockname()[0])
            if not address.is_loopback and not address.is_link_local:
                found.append(address)
    if not found:
        raise ConfigError("node_addresses: this machine has no default route; set PENSTOCK_NODE_ADDRESSES")
    return tuple(found)
