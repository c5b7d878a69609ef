"""A pruned local copy of a kind, kept current by list and watch."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import structlog

from penstock_kube import errors
from penstock_kube.client import KubeClient, Object, WatchEvent
from penstock_kube.resources import Resource

Key = tuple[str, str]  # (namespace, name); namespace is empty for cluster-scoped kinds

log = structlog.get_logger(__name__)

CHECK_SECONDS = (10.0, 30.0)  # after a broken watch until the next list, spread so that clients do not list together
CHECK_SECONDS_MAX = 600.0  # where watches break all the time, say by a proxy
CALM_SECONDS = 600.0  # without a broken watch, after which the first of these counts again


def key_of(obj: Object) -> Key:
    """Return the key of a raw object."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def version_of(obj: Object) -> int:
    """Return the version of a raw object as a number, 0 where it is none: by contract it may be any text."""
    text = obj["metadata"].get("resourceVersion")
    return int(text) if isinstance(text, str) and len(text) <= 40 and text.isascii() and text.isdigit() else 0


def drop_managed_fields(obj: Object) -> Object | None:
    """Prune what no reader needs: managed fields are often half of an object."""
    obj["metadata"].pop("managedFields", None)
    return obj


class Reflector:
    """Lists once, then follows the watch for as long as `run` runs.

    `prune` sees every object as it arrives and returns what is kept of it, or None to keep nothing: memory is
    bounded by what it keeps. `on_change` is called with the pruned object, or None when it is gone, after the
    cache changed; equal objects are not reported again. What either raises is logged with the object and ends
    nothing. Broken connections resume where they ended, and some seconds later everything is listed again: behind
    them, the history of the API server may have become another one (etcd restored from a backup), whose versions
    say nothing of ours. An expired version lists again and reports the difference; a watch that is silent for
    `idle_seconds` is opened anew.
    """

    def __init__(
        self,
        client: KubeClient,
        res: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        prune: Callable[[Object], Object | None] = drop_managed_fields,
        on_change: Callable[[Key, Object | None], None] = lambda _key, _obj: None,
        idle_seconds: float = 90.0,
        max_backoff: float = 5.0,
    ) -> None:
        self._client = client
        self._res = res
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._prune = prune
        self._on_change = on_change
        self._idle_seconds = idle_seconds
        self._max_backoff = max_backoff
        self._objects: dict[Key, Object] = {}
        self._version: str | None = None
        self._alive_at = time.monotonic()
        self._failures = 0
        self._check_at: float | None = None  # when to list again after a broken watch
        self._check_after = 0.0
        self._broken_at = float("-inf")
        self.synced = asyncio.Event()
        self.last_error: errors.ApiError | None = None  # None once the server answers again
        self.relists = 0
        self.errors = 0
        self.faults = 0  # objects that a callback could not handle

    @property
    def cache(self) -> Mapping[Key, Object]:
        """Pruned objects by (namespace, name); a live, read-only view."""
        return MappingProxyType(self._objects)

    @property
    def resource(self) -> Resource:
        """Kind that is reflected."""
        return self._res

    def age_seconds(self) -> float:
        """Seconds since the server last proved that the cache is current (an answer, event or bookmark)."""
        return time.monotonic() - self._alive_at

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        while True:
            try:
                if self._check_at is not None and time.monotonic() >= self._check_at:
                    self._version = None
                version = self._version or await self._list()
                await self._watch(version)
            except errors.Gone:
                log.info("watch expired, listing again", resource=self._res.plural)
                self._version = None
            except errors.ApiError as error:
                self._note_failure(error)
                await asyncio.sleep(self._backoff(error))

    async def _list(self) -> str:
        seen: set[Key] = set()
        version = ""
        pages = self._client.pages(
            self._res, self._namespace, label_selector=self._label_selector, field_selector=self._field_selector
        )
        async for page in pages:
            for obj in page.items:
                seen.add(key_of(obj))
                self._store(obj)
            version = page.resource_version
            self._touch()
        for key in [key for key in self._objects if key not in seen]:
            self._forget(key)
        self._version = version
        self._check_at = None
        self.relists += 1
        self.synced.set()
        return version

    async def _watch(self, version: str) -> None:
        # Jittered, so that the watches of many agents do not end together.
        server_seconds = int(240 + 120 * random.random())  # noqa: S311 - spreads load, no secret
        started = time.monotonic()
        if self._check_at is not None:
            server_seconds = min(server_seconds, max(1, int(self._check_at - started) + 1))
        async for event in self._client.watch(
            self._res,
            self._namespace,
            resource_version=version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            server_seconds=server_seconds,
            idle_seconds=self._idle_seconds,
        ):
            self._touch()
            self._handle(event)
        if time.monotonic() - started < server_seconds - 1.0:
            self._note_broken()  # a server that stops ends its watches first
        if time.monotonic() - started < 1.0:
            await asyncio.sleep(self._backoff(None))  # a server that ends watches at once is not hammered
        self._touch()

    def _note_broken(self) -> None:
        """Have everything listed again some time after a watch broke."""
        now = time.monotonic()
        if now - self._broken_at > CALM_SECONDS:
            self._check_after = 0.0
        self._broken_at = now
        if self._check_at is None:
            first = random.uniform(*CHECK_SECONDS)  # noqa: S311 - spreads load, no secret
            self._check_after = min(2 * self._check_after or first, CHECK_SECONDS_MAX)
            self._check_at = now + self._check_after

    def _handle(self, event: WatchEvent) -> None:
        metadata = event.object.get("metadata")
        if not isinstance(metadata, dict) or (event.type != "BOOKMARK" and not metadata.get("name")):
            self._version = None
            raise errors.Unavailable(f"watch {self._res.plural}: an event without an object; listing again")
        self._version = metadata.get("resourceVersion") or self._version
        if event.type == "DELETED":
            self._forget(key_of(event.object))
        elif event.type in ("ADDED", "MODIFIED"):
            self._store(event.object)

    def _store(self, obj: Object) -> None:
        key = key_of(obj)
        try:
            kept = self._prune(obj)
        except Exception as error:  # one object's fault must not end the watch; what was known of it stays
            self._note_fault(key, error)
            return
        if kept is None:
            self._forget(key)
        elif self._objects.get(key) != kept:
            self._objects[key] = kept
            self._report(key, kept)

    def _forget(self, key: Key) -> None:
        if self._objects.pop(key, None) is not None:
            self._report(key, None)

    def _report(self, key: Key, obj: Object | None) -> None:
        try:
            self._on_change(key, obj)
        except Exception as error:  # as in `_store`
            self._note_fault(key, error)

    def _note_fault(self, key: Key, error: Exception) -> None:
        self.faults += 1
        log.error(
            "object cannot be handled, going on without it",
            kind=self._res.kind,
            object="/".join(filter(None, key)),
            error=f"{type(error).__name__}: {error}",
            exc_info=error,
        )

    def _touch(self) -> None:
        self.last_error = None
        self._alive_at = time.monotonic()
        self._failures = 0

    def _note_failure(self, error: errors.ApiError) -> None:
        self.errors += 1
        self.last_error = error
        self._note_broken()
        if not isinstance(error, errors.Unavailable):
            self._version = None  # the server answered, and not with a watch: begin again from a list
        if self._failures in (0, 10) or not error.retriable:
            log.warning("watch failed, trying again", resource=self._res.plural, error=str(error))

    def _backoff(self, error: errors.ApiError | None) -> float:
        self._failures += 1
        limit = min(self._max_backoff, 0.2 * 2 ** min(self._failures, 10))
        pause = random.uniform(0.1, limit)  # noqa: S311 - spreads load, no secret
        return max(pause, min(error.retry_after or 0.0, 60.0)) if error else pause
