"""From events to work: a change enters the store, and the keys that it may concern enter the queue."""

from __future__ import annotations

import structlog
from penstock_kube import Key, Object, Resource, WorkQueue, key_of

from penstock_operator.keys import SUMMING, WorkKey, affected, beats_changed, everything
from penstock_operator.store import Change, Store

log = structlog.get_logger(__name__)

SUMMING_DELAY = 0.5  # seconds that sums wait for further changes


class Feed:
    """Joins store and queue."""

    def __init__(self, store: Store, queue: WorkQueue[WorkKey]) -> None:
        self.store = store
        self.queue = queue

    def learn(self, resource: Resource, raw: Object) -> None:
        """Take in an object: from an event, or the answer to a write of ours."""
        self.tell(self.store.put(resource, raw))

    def forget(self, resource: Resource, key: Key, uid: str = "") -> None:
        """Take in that an object is gone."""
        self.tell(self.store.drop(resource, key, uid))

    def tell(self, change: Change | None) -> None:
        """Queue what a change may concern."""
        for key in affected(self.store, change) if change else ():
            if key.subject in SUMMING:
                self.queue.add_after(key, SUMMING_DELAY)
            else:
                self.queue.add(key)

    def beats_changed(self, names: frozenset[str]) -> None:
        """Queue what it may concern that agents fell silent or live again."""
        for key in beats_changed(self.store, names):
            self.queue.add(key)

    def everything(self) -> None:
        """Queue all there is."""
        for key in everything(self.store):
            self.queue.add(key)

    def event(self, resource: Resource, type_: str | None, raw: Object) -> None:
        """Take in an event of a watch; what one object's event breaks is logged and ends nothing."""
        try:
            self._take(resource, type_, raw)
        except Exception:
            name = "/".join(filter(None, key_of(raw)))
            log.exception("event cannot be handled, going on", kind=resource.kind, name=name)

    def _take(self, resource: Resource, type_: str | None, raw: Object) -> None:
        if type_ == "DELETED":
            metadata = raw["metadata"]
            self.forget(resource, (metadata.get("namespace", ""), metadata["name"]), metadata.get("uid", ""))
        else:
            self.learn(resource, raw)
