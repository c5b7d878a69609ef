"""What an agent is started with: from the environment in a pod, from the command line elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock_agent.errors import ConfigError


class SourceType(StrEnum):
    """Where the desired state comes from."""

    KUBERNETES = "kubernetes"
    FILES = "files"


class Settings(BaseModel):
    """Start parameters; each is read from PENSTOCK_<NAME>; NODE_NAME and POD_NAMESPACE come from the pod."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: SourceType = SourceType.KUBERNETES
    node_name: Annotated[str, Field(max_length=253)] = ""
    dataplane: Annotated[str, Field(max_length=32)] = "default"
    run_dir: Path = Path("/run/penstock")  # holds the data plane's control.sock
    shm_dir: Path = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
    state_dir: Path = Path("/var/lib/penstock")
    files: Path | None = None  # directory, or one file, for source `files`
    node_addresses: tuple[IPv4Address | IPv6Address, ...] = ()  # NAT sources for `files`; empty: the default route's
    kubeconfig: Path | None = None
    namespace: str = "penstock-system"  # of the installation, where Leases are; POD_NAMESPACE in a pod
    host: str = ""  # of the HTTP server; empty: all addresses
    port: Annotated[int, Field(ge=0, le=65535)] = 9402  # of the HTTP server; 0: any free one
    lease_seconds: Annotated[int, Field(ge=2, le=60)] = 3  # without a renewal after which a node counts as lost

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source is SourceType.FILES and self.files is None:
            raise ValueError("files: is required for source `files`; name a directory of YAML files")
        if self.source is SourceType.KUBERNETES and not self.node_name:
            raise ValueError("node_name: is required for source `kubernetes`; set NODE_NAME to the node's name")
        return self

    @property
    def socket(self) -> Path:
        """The data plane's control socket."""
        return self.run_dir / "control.sock"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment; ConfigError names the variable and the fix."""
        values = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := f"PENSTOCK_{name.upper()}")
        }
        for name, variable in (("node_name", "NODE_NAME"), ("namespace", "POD_NAMESPACE")):
            if environment.get(variable):
                values.setdefault(name, environment[variable])
        addresses = tuple(part.strip() for part in values.pop("node_addresses", "").split(",") if part.strip())
        try:
            return cls.model_validate({**values, "node_addresses": addresses})
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]) if problem["loc"] else ""
            variable = f"PENSTOCK_{name.upper()}: " if name else ""
            raise ConfigError(f"{variable}{problem['msg'].removeprefix('Value error, ')}") from error
