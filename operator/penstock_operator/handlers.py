"""The only file that knows kopf: its events become changes of the store.

Handlers of raw events only. kopf's other handlers would write annotations and finalizers into users' objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import kopf
import structlog
from penstock_kube import Connection, Object, Resource

log = structlog.get_logger(__name__)

OnEvent = Callable[[Resource, str | None, Object], None]
"""Called with the kind, the type of the event (None: from a list) and the raw object."""


def registry(resources: Iterable[Resource], on_event: OnEvent, connection: Connection) -> kopf.OperatorRegistry:
    """Return handlers for kinds, and a login with our own configuration."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found, id="login")
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(connection)

    for resource in resources:
        _follow(found, resource, on_event)
    return found


def _follow(found: kopf.OperatorRegistry, resource: Resource, on_event: OnEvent) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=found, id=resource.plural)
    async def changed(event: Any, **_: Any) -> None:
        on_event(resource, event["type"], event["object"])


async def connection_info(connection: Connection) -> kopf.ConnectionInfo:
    """Translate our connection into kopf's."""
    user = connection.user
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_data=connection.ca,
        insecure=connection.insecure,
        certificate_data=connection.client_cert,
        private_key_data=connection.client_key,
        token=await connection.token(),
        username=user.username if user else None,
        password=user.password if user else None,
        default_namespace=connection.namespace,
        trust_env=not connection.is_local,
    )


def settings() -> kopf.OperatorSettings:
    """Return settings of an operator that writes nothing by itself."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = True  # no watches of CRDs and namespaces, and no rights for them
    found.peering.standalone = True
    found.watching.server_timeout = 300
    found.watching.inactivity_timeout = 90.0  # a server sends a bookmark about once a minute
    found.watching.reconnect_backoff = 0.5
    found.queueing.idle_timeout = 1.0  # an idle task per object is memory
    found.networking.error_backoffs = (0.1, 0.5, 1, 2, 3, 5, 5, 5, 5, 10, 10, 10, 10)
    return found


async def run(
    resources: Iterable[Resource],
    on_event: OnEvent,
    connection: Connection,
    *,
    identity: str,
    stop: asyncio.Event,
    ready: asyncio.Event,
) -> None:
    """Follow kinds until `stop` is set, a signal arrives, or kopf gives up."""
    await kopf.operator(
        registry=registry(resources, on_event, connection),
        settings=settings(),
        # Else kopf makes one of the user's name, and the user id of a pod need not have any.
        identity=cast(Any, identity),
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
        ready_flag=ready,
    )
