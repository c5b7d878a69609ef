"""Source `files`: the same YAML as for kubectl, in a directory that is watched.

LoadBalancerVIPs, RLPolicies and at most one DataPlane; other groups' objects are skipped. An object that is bad keeps
its last good state, also over a restart, while the error names file, line, field and fix; all others are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

import structlog
import watchfiles
from penstock_api import standalone
from penstock_api.dataplane import DataPlane
from penstock_api.dataplanenode import DataPlaneNodeSpec, NodeNatSource
from penstock_api.errors import KindError
from penstock_api.fields import is_unicast
from penstock_api.files import FileObject, read_files
from penstock_api.names import API_VERSION
from penstock_api.objects import KubeObject
from penstock_api.reading import parse_any
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP
from pydantic import BaseModel

from penstock_agent.desired import Name, Served, Snapshot
from penstock_agent.errors import ConfigError
from penstock_agent.files import StateStore
from penstock_agent.findings import NodeFindings

log = structlog.get_logger(__name__)

KEPT = "files.json"
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
        self._store = store
        self._scheduler_key = _scheduler_key(store)
        self._kept = _kept(store.load(KEPT, Kept))
        self._node_name = node_name
        self._node_addresses = node_addresses
        self._snapshot: Snapshot | None = None
        self._error = ""
        self._again = False  # the error may go without a change of a file
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
        polling = False
        while True:
            await self.load()
            try:
                await self._watch(polling=polling)
            except FileNotFoundError:
                pass
            except (OSError, RuntimeError) as error:  # the kernel has no watch left, say
                if not polling:
                    log.warning("files cannot be watched, they are looked at now and then", error=str(error))
                polling = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, *, polling: bool) -> None:
        watch = watchfiles.awatch(
            self._path, debounce=100, step=50, rust_timeout=1000, yield_on_timeout=True, force_polling=polling
        )
        async for changes in watch:
            if changes or self._again:
                await self.load()

    async def load(self) -> None:
        """Read all files. In a thread, for much YAML takes seconds."""
        error, self._again = "", False
        try:
            served = await asyncio.to_thread(lambda: standalone.select(read_files(self._path), self._kept))
            error = served.error
            self._take(served)
        except OSError as problem:
            error, self._again = f"{self._path}: {problem.strerror}; check the path and its permissions", True
        except ConfigError as problem:
            error, self._again = str(problem), True
        if error != self._error and error:
            log.error("files have errors; what they name keeps its last good state", error=error)
        self._error = error
        if not error:
            self._read_at = time.monotonic()
        self._on_change()

    def _take(self, served: standalone.Served) -> None:
        snapshot = snapshot_of(
            served,
            node_name=self._node_name,
            scheduler_key=self._scheduler_key,
            addresses=self._node_addresses or default_addresses(),
        )
        kept = {each.identity: each for each in served.objects}
        if kept != self._kept:
            self._kept = kept
            self._store.put(KEPT, Kept(objects=tuple(KeptObject.of(each) for each in served.objects)))
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            log.info("files read", path=str(self._path), vips=len(snapshot.vips), policies=len(snapshot.policies))


def snapshot_of(
    found: standalone.Served, *, node_name: str, scheduler_key: str, addresses: tuple[Address, ...]
) -> Snapshot:
    """Return what objects of files ask of the node with these addresses. Raises ConfigError."""
    served = []
    for vip in _of(found, LoadBalancerVIP):
        uid = vip.metadata.uid or f"file:{vip.key}"
        named = vip.model_copy(update={"metadata": vip.metadata.model_copy(update={"uid": uid})})
        served.append(Served(named, vip.spec.addresses or ()))
    return Snapshot(
        node=_node(found.data_plane, node_name, scheduler_key, addresses),
        vips=tuple(served),
        policies={(p.metadata.namespace, p.metadata.name): p.spec for p in _of(found, RLPolicy)},
        vip_addresses=frozenset(address for item in served for address in item.addresses),
    )


def _node(
    dataplane: DataPlane | None, name: str, scheduler_key: str, addresses: tuple[Address, ...]
) -> DataPlaneNodeSpec:
    spec = (dataplane or DataPlane.model_validate({"metadata": {"name": "default"}})).spec
    for address in addresses:
        if not is_unicast(address):
            raise ConfigError(f"node_addresses: {address} cannot be reached from backends; name a routable address")
    return DataPlaneNodeSpec(
        data_plane_name=dataplane.metadata.name if dataplane else "default",
        node_name=name or "localhost",
        scheduler_key=scheduler_key,
        features=spec.features,
        nat_source=NodeNatSource(
            addresses=addresses,
            port_first=spec.nat_source.port_first,
            port_last=spec.nat_source.port_last,
        ),
        announcement=spec.announcement,
        # Who writes these files owns the machine: without a DataPlane nobody restricts anybody.
        static_endpoint_cidrs=spec.static_endpoint_cidrs if dataplane else ANY_NETWORK,
        limits=spec.limits,
    )


class KeptObject(BaseModel):
    """An object that was served, and where it was written."""

    file: str
    line: int
    object: dict[str, Any]

    @classmethod
    def of(cls, each: FileObject) -> KeptObject:
        """Take it out of a reading."""
        body = {"apiVersion": API_VERSION, "kind": each.obj.info.kind, **each.obj.to_dict()}
        body.pop("status", None)
        return cls(file=each.file, line=each.line, object=body)


class Kept(BaseModel):
    """What was served last: the last good state of objects that have gone bad when the next process starts."""

    objects: tuple[KeptObject, ...] = ()


def last_good(state_dir: Path) -> dict[tuple[str, str], FileObject]:
    """Return what an agent with this state directory served last."""
    return _kept(StateStore(state_dir, NodeFindings()).load(KEPT, Kept))


def _kept(kept: Kept | None) -> dict[tuple[str, str], FileObject]:
    found = []
    for each in kept.objects if kept else ():
        # An object that an older release wrote may not be understood.
        with contextlib.suppress(KindError):
            found.append(FileObject(parse_any(each.object), each.file, each.line))
    return {each.identity: each for each in found}


def _of(found: standalone.Served, kind: type[Kind]) -> list[Kind]:
    return [each.obj for each in found.objects if isinstance(each.obj, kind)]


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
