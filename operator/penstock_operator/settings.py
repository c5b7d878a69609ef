"""What an operator is started with: from the environment in a pod, from the command line elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from penstock_api.names import INSTALL_NAMESPACE
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_operator.plan.daemonsets import Installation


class SettingsError(ValueError):
    """A setting can't be used; the message names it and the fix."""


class Settings(BaseModel):
    """Start parameters; each is read from PENSTOCK_<NAME>, the namespace also from POD_NAMESPACE."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: str | None = None
    context: str | None = None
    namespace: Annotated[str, Field(min_length=1, max_length=63)] = INSTALL_NAMESPACE
    identity: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        default_factory=lambda: f"{socket.gethostname()}_{uuid4().hex[:8]}"
    )
    agent_image: Annotated[str, Field(min_length=1)] = "penstock/agent:latest"
    dataplane_image: Annotated[str, Field(min_length=1)] = "penstock/dataplane:latest"
    vpp_image: Annotated[str, Field(min_length=1)] = "penstock/vpp:latest"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    reserved_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()  # networks beside the cluster's that VIPs must not meet
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8080  # 0: any free one
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9090  # 0: any free one
    lease_name: Annotated[str, Field(min_length=1, max_length=63)] = "penstock-operator"
    lease_seconds: Annotated[float, Field(ge=1.0, le=300.0)] = 15.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def installation(self) -> Installation:
        """Where and from which images pods run."""
        return Installation(
            self.namespace, self.dataplane_image, self.agent_image, self.vpp_image, self.image_pull_policy
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """Read the environment; what is `given` and not None comes before it. SettingsError names variable and fix."""
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            if text := environment.get(f"PENSTOCK_{name.upper()}"):
                values[name] = text
        if namespace := environment.get("POD_NAMESPACE"):
            values.setdefault("namespace", namespace)
        if pod := environment.get("POD_NAME"):
            values.setdefault("identity", pod)
        if isinstance(values.get("reserved_cidrs"), str):
            values["reserved_cidrs"] = [part.strip() for part in values["reserved_cidrs"].split(",") if part.strip()]
        values.update({name: value for name, value in given.items() if value is not None})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    return f"{name} (PENSTOCK_{name.upper()}): {problem['msg']} (is {problem['input']!r}); correct it"
