"""Kubernetes Events (events.k8s.io/v1): said once, counted when repeated, never a flood."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from penstock_kube import errors
from penstock_kube.client import KubeClient, Object
from penstock_kube.resources import EVENTS

log = structlog.get_logger(__name__)

NOTE_LIMIT = 1024  # the API server refuses longer notes
SERIES_SECONDS = 360.0  # a repetition later than this is news again, as with Kubernetes' own recorder
REMEMBERED = 4096  # events whose repetitions are counted

Identity = tuple[str, str, str, str]  # uid, type, reason, note


@dataclass
class _Sent:
    """An event that exists at the API server."""

    name: str
    namespace: str
    at: float
    count: int = 1


@dataclass
class _Waiting:
    """An event that has not been written yet, with its repetitions since."""

    regarding: Object
    type: str
    reason: str
    action: str
    note: str
    first: str
    repeated: int = field(default=1)


class EventRecorder:
    """Records events without blocking the caller; `run` writes them.

    Repetitions of an event (same object, type, reason and note) become one series. Writes are bounded by `rate`
    per second with bursts of `burst`; what waits is bounded by `capacity`, the oldest goes first and is counted
    in `dropped`.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        controller: str,
        instance: str,
        rate: float = 10.0,
        burst: int = 50,
        capacity: int = 2000,
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance[:128]
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._refilled_at = time.monotonic()
        self._capacity = capacity
        self._waiting: OrderedDict[Identity, _Waiting] = OrderedDict()
        self._sent: OrderedDict[Identity, _Sent] = OrderedDict()
        self._wake = asyncio.Event()
        self.dropped = 0
        self.written = 0

    def record(self, regarding: Object, *, type_: str, reason: str, note: str, action: str = "Reconcile") -> None:
        """Say that something happened to `regarding` (a raw object); `type_` is Normal or Warning."""
        note = note if len(note) <= NOTE_LIMIT else note[: NOTE_LIMIT - 3] + "..."
        metadata = regarding["metadata"]
        identity = (metadata.get("uid", ""), type_, reason, note)
        if waiting := self._waiting.get(identity):
            waiting.repeated += 1
            return
        if len(self._waiting) >= self._capacity:
            self._waiting.popitem(last=False)
            self.dropped += 1
        reference = {
            "apiVersion": regarding.get("apiVersion", ""),
            "kind": regarding.get("kind", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        }
        if metadata.get("namespace"):
            reference["namespace"] = metadata["namespace"]
        self._waiting[identity] = _Waiting(reference, type_, reason, action, note, _timestamp())
        self._wake.set()

    async def run(self) -> None:
        """Write what is recorded until cancelled."""
        while True:
            await self._wake.wait()
            while self._waiting:
                await self._pace()
                identity, event = self._waiting.popitem(last=False)
                try:
                    await self._write(identity, event)
                    self.written += 1
                except errors.ApiError as error:
                    # Events are a courtesy: one that cannot be written is not worth holding up the others.
                    self.dropped += 1
                    log.debug("event not written", reason=event.reason, error=str(error))
            self._wake.clear()

    async def _pace(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._tokens < 1.0:
            await asyncio.sleep((1.0 - self._tokens) / self._rate)
        self._tokens -= 1.0

    async def _write(self, identity: Identity, event: _Waiting) -> None:
        now = time.monotonic()
        sent = self._sent.pop(identity, None)
        if sent is None or now - sent.at > SERIES_SECONDS or not await self._extend(sent, event):
            sent = await self._create(identity, event)
        sent.at = now
        self._sent[identity] = sent
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    async def _extend(self, sent: _Sent, event: _Waiting) -> bool:
        sent.count += event.repeated
        series = {"count": sent.count, "lastObservedTime": _timestamp()}
        try:
            await self._client.patch(EVENTS, sent.name, {"series": series}, sent.namespace)
        except errors.NotFound:
            return False  # expired at the API server
        return True

    async def _create(self, identity: Identity, event: _Waiting) -> _Sent:
        namespace = event.regarding.get("namespace", "default")  # events of cluster-scoped objects live there
        digest = hashlib.sha256("\n".join((*identity, event.first)).encode()).hexdigest()[:16]
        name = f"{event.regarding['name'][:200]}.{digest}"
        body: Object = {
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": event.first,
            "type": event.type,
            "reason": event.reason,
            "action": event.action,
            "note": event.note,
            "regarding": event.regarding,
            "reportingController": self._controller,
            "reportingInstance": self._instance,
        }
        if event.repeated > 1:
            body["series"] = {"count": event.repeated, "lastObservedTime": _timestamp()}
        await self._client.create(EVENTS, body)
        return _Sent(name, namespace, time.monotonic(), event.repeated)


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
