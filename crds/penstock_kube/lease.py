"""Leases: who leads, and which nodes live."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from penstock_kube import errors
from penstock_kube.client import KubeClient, Object
from penstock_kube.resources import LEASES

log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Somebody else leads, or may soon: stop writing at once."""


class HistoryRewoundError(Exception):
    """The API server has an older state than it had (etcd restored from a backup): what is known of it is void."""


_KEPT = ("resourceVersion", "labels", "annotations", "ownerReferences")
"""Metadata that a renewal repeats: a chart that made the lease knows it by its labels and annotations."""


class LeaderLease:
    """One holder at a time: `await acquire()`, then run `await hold()` beside the work; it raises when lost.

    As the holder alone writes the record, it also notices when that is an older one than it wrote: `hold()` raises
    HistoryRewoundError, and the lease stays held.

    A holder that could not renew for `renew_deadline` seconds gives up before others may take over after
    `duration`. Expiry is judged by our own clock since the record last changed, never by comparing the clocks of
    two machines.
    """

    def __init__(
        self,
        client: KubeClient,
        name: str,
        namespace: str,
        identity: str,
        *,
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
    ) -> None:
        if not retry < renew_deadline < duration:
            raise ValueError("a lease needs retry < renew_deadline < duration, or two leaders overlap")
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._duration = duration
        self._renew_deadline = renew_deadline
        self._retry = retry
        self._record: Object = {}
        self._seen_at = 0.0
        self._renewed_at = float("-inf")

    @property
    def held(self) -> bool:
        """Whether writing is safe now: renewed recently enough that nobody else can have taken over."""
        return time.monotonic() - self._renewed_at < self._renew_deadline

    @property
    def holder(self) -> str:
        """Identity that the lease named when last read."""
        return str((self._record.get("spec") or {}).get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(self._retry * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret
        log.info("lease acquired", lease=self._name, identity=self._identity)

    async def hold(self) -> None:
        """Renew until the lease is lost, then raise LeaseLostError."""
        while True:
            await asyncio.sleep(self._retry)
            remaining = self._renew_deadline - (time.monotonic() - self._renewed_at)
            written = self._record
            try:
                # Half of the time at most, so that a request that hangs leaves room for another.
                async with asyncio.timeout(min(max(remaining, 0.0), self._renew_deadline / 2)):
                    renewed = await self._attempt()
            except TimeoutError:
                renewed = False
            if self._is_before(written):
                await self._attempt()
                raise HistoryRewoundError(f"lease {self._namespace}/{self._name} is as it was some time ago")
            if not renewed and (self._taken() or not self.held):
                raise LeaseLostError(f"lease {self._namespace}/{self._name} is lost (holder {self.holder or 'none'})")

    async def release(self) -> None:
        """Let the next one take over at once; a failure only costs it the wait."""
        if not self.held:
            return
        self._renewed_at = float("-inf")
        body = self._body(holder="", duration=1)
        with contextlib.suppress(errors.ApiError):
            await self._client.replace(LEASES, body)

    def _is_before(self, written: Object) -> bool:
        """Tell whether the record, which we alone write, is one from before the last that we wrote."""
        now, then = self._record.get("spec") or {}, written.get("spec") or {}
        ours = now.get("holderIdentity") == then.get("holderIdentity") == self._identity
        return ours and str(now.get("renewTime") or "") < str(then.get("renewTime") or "")

    def _taken(self) -> bool:
        return self.holder not in ("", self._identity)

    async def _attempt(self) -> bool:
        """Try once to take or renew; False where somebody else has it or the API server is away."""
        started = time.monotonic()
        try:
            if not self.held:  # a holder knows the record: one request renews it
                self._observe(await self._client.get(LEASES, self._name, self._namespace))
            if self._taken() and time.monotonic() - self._seen_at < self._lifetime():
                return False
            self._observe(await self._client.replace(LEASES, self._body(self._identity, self._duration)))
        except errors.NotFound:
            return await self._create(started)
        except errors.Conflict:
            return await self._look()
        except errors.ApiError as error:
            log.debug("lease not renewed", lease=self._name, error=str(error))
            return False
        self._renewed_at = started  # not now: others count from when the server wrote it
        return True

    async def _look(self) -> bool:
        """Find out who wrote the lease; ours or not, this attempt failed."""
        with contextlib.suppress(errors.ApiError):
            self._observe(await self._client.get(LEASES, self._name, self._namespace))
        return False

    async def _create(self, started: float) -> bool:
        self._record = {}
        try:
            self._observe(await self._client.create(LEASES, self._body(self._identity, self._duration)))
        except errors.ApiError as error:
            log.warning("lease not created", lease=f"{self._namespace}/{self._name}", error=str(error))
            return False
        self._renewed_at = started
        return True

    def _observe(self, record: Object) -> None:
        if record["metadata"]["resourceVersion"] != (self._record.get("metadata") or {}).get("resourceVersion"):
            self._seen_at = time.monotonic()
        self._record = record

    def _lifetime(self) -> float:
        spec = self._record.get("spec") or {}
        return float(spec.get("leaseDurationSeconds") or self._duration)

    def _body(self, holder: str, duration: float) -> Object:
        spec = self._record.get("spec") or {}
        now = _timestamp()
        taken = holder != spec.get("holderIdentity")
        known = self._record.get("metadata") or {}
        kept = {name: known[name] for name in _KEPT if name in known}
        return {
            "metadata": {"name": self._name, "namespace": self._namespace, **kept},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, int(duration)),
                "acquireTime": now if taken else spec.get("acquireTime"),
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (1 if taken and holder else 0),
            },
        }


class NodeLease:
    """A lease that only says "I live": renewed by one holder, read by others; nobody competes for it."""

    def __init__(
        self,
        client: KubeClient,
        name: str,
        namespace: str,
        holder: str,
        *,
        duration_seconds: int = 4,
        field_manager: str,
        labels: Mapping[str, str] | None = None,
        owner: Object | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._field_manager = field_manager
        metadata: Object = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
        if owner is not None:
            metadata["ownerReferences"] = [owner]
        self._body: Object = {
            "metadata": metadata,
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": duration_seconds},
        }

    async def renew(self) -> None:
        """Write the lease with the time of now; creates it where it is missing."""
        self._body["spec"]["renewTime"] = _timestamp()
        await self._client.apply(LEASES, self._body, field_manager=self._field_manager)

    async def release(self) -> None:
        """Delete the lease: this node is leaving."""
        await self._client.delete(LEASES, self._name, self._namespace)


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
