"""What all kinds share: metadata, the envelope of an object, and the base of a status."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from penstock_api.conditions import PENDING, Condition, ConditionType, is_true
from penstock_api.fields import ObjectName
from penstock_api.model import Model
from penstock_api.names import PAUSED_ANNOTATION, KindInfo, ResourceName


class ObjectMeta(Model):
    """The part of an object's metadata that Penstock reads; the rest is let through."""

    name: ObjectName
    namespace: Annotated[str, Field(max_length=63)] = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Any, ...] = ()
    managed_fields: tuple[Any, ...] = ()
    deletion_grace_period_seconds: int | None = None
    generate_name: str = ""
    self_link: str = ""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]

Count = Annotated[int, Field(ge=0)]
ShortText = Annotated[str, Field(max_length=256)]


class Status(Model):
    """What Penstock found and did; users read it and never write it."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """Generation of the spec that this status speaks of; -1 before anybody has looked."""
    conditions: Conditions = PENDING
    """State in terms that `kubectl wait` understands."""


class KubeObject(Model):
    """Envelope of an object."""

    info: ClassVar[KindInfo]

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    metadata: ObjectMeta

    @classmethod
    def resource(cls) -> ResourceName:
        """The kind as an API client addresses it."""
        return cls.info.resource

    def to_dict(self) -> dict[str, Any]:
        """Return the object as it is written in YAML; of its metadata only what is set."""
        metadata = self.metadata.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {**super().to_dict(), "metadata": metadata}

    @property
    def key(self) -> str:
        """`namespace/name`, or the name of a cluster-scoped object."""
        return f"{self.metadata.namespace}/{self.metadata.name}" if self.metadata.namespace else self.metadata.name

    @property
    def paused(self) -> bool:
        """Whether the user has frozen the object."""
        return self.metadata.annotations.get(PAUSED_ANNOTATION) == "true"

    @property
    def deleting(self) -> bool:
        """Whether the object only waits for its finalizers."""
        return self.metadata.deletion_timestamp is not None

    @property
    def ready(self) -> bool:
        """Whether the condition `Ready` is True."""
        status = getattr(self, "status", None)
        return isinstance(status, Status) and is_true(status.conditions, ConditionType.READY)
