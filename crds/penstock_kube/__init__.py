"""The Kubernetes API server for operator and agent alike; knows nothing of Penstock's kinds.

Objects are raw dictionaries, pruned as they arrive; validation belongs to `penstock_api`, decisions to callers.
"""

from penstock_kube.client import KubeClient, Object, Page, WatchEvent
from penstock_kube.config import Connection
from penstock_kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeConfigError,
    NotFound,
    Superseded,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from penstock_kube.events import EventRecorder
from penstock_kube.lease import HistoryRewoundError, LeaderLease, LeaseLostError, NodeLease
from penstock_kube.reflector import Key, Reflector, drop_managed_fields, key_of, version_of
from penstock_kube.resources import (
    CONFIG_MAPS,
    CRDS,
    DAEMON_SETS,
    ENDPOINT_SLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
)
from penstock_kube.workqueue import WorkQueue

__all__ = [
    "CONFIG_MAPS",
    "CRDS",
    "DAEMON_SETS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PODS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "SERVICE_CIDRS",
    "AlreadyExists",
    "ApiError",
    "Conflict",
    "Connection",
    "EventRecorder",
    "Forbidden",
    "Gone",
    "HistoryRewoundError",
    "Invalid",
    "Key",
    "KubeClient",
    "KubeConfigError",
    "LeaderLease",
    "LeaseLostError",
    "NodeLease",
    "NotFound",
    "Object",
    "Page",
    "Reflector",
    "Resource",
    "Superseded",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "WatchEvent",
    "WorkQueue",
    "drop_managed_fields",
    "key_of",
    "version_of",
]
